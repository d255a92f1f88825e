"""The planner's rules: each takes figures and returns a decision with one sentence that names the figures."""
