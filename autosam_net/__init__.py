"""autosam_net: a frozen Segment Anything encoder turned into a medical segmentation model, from few labels.

What notebooks and programs need, each name imported from its home when first used, so that `import autosam_net` is
quick:

    segment(image, model)        an array or file -> labels, probabilities, the Dice to expect
    load_model(27)               a trained model: of a data set, from a folder or a zip
    embed_image(image, encoder)  the embeddings of one image; `load_encoder("lite_medsam")`
    read_image(path)             an image of any format, with its geometry
    find_dataset(27)             the raw data set `Dataset027_...`
    preprocess_dataset(...)      raw cases -> normalised slices on disk
    embed_dataset(...)           slices -> embeddings on disk, the encoder's only run
    train_head(...)              embeddings -> a trained head
    evaluate_folder(...)         predictions and references -> metrics

The names and their homes stand in `__init__.pyi`, which type checkers and editors read too.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
