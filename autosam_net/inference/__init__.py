"""From trained heads to label maps on the raw grid."""
