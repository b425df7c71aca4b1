"""The model card of a network, in the hub's format: what it is for, what it was made of, and what not to do with it."""

from collections.abc import Mapping

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from facemodels.config import NetworkConfig
from facemodels.morphable import MorphableModel

TAGS = ("faces", "3d-morphable-model", "disentanglement", "image-editing", "pytorch", "safetensors")

EXPORTED = "## Exported copy"
"""Heading of what an exported copy says of itself."""

_INTENDED_USE = """\
## Intended use

Research and teaching on representations of faces, and edits of pictures of people who agree to them: another
expression, pose or light, a neutral face for a comparison, the 3D shape behind a photo, synthetic faces as data.

Not for: telling who somebody is, whether two photos show the same person, or following people; judging character,
health, origin or feelings from a face; decisions about people; pictures that make others believe that somebody did or
said what they did not."""

_USE = """\
## How to use

Crops must be aligned as in training, with channels first and values in [0, 1]:

```python
from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.data.alignment import load_photo
from facemodels.editing import to_tensor
from facemodels.fitting.landmarks import MediaPipeDetector

model = NeuroTensorialAutoencoder.from_pretrained("PATH OR OWNER/NAME")
crop = to_tensor(load_photo("photo.jpg", MediaPipeDetector(), size=model.config.size).crop)
codes = model.encode(crop)                                   # identity, expression, pose, light, mask, background
edited = model.decode(codes.replace(expression=-codes.expression)).image
```"""

_RESPONSIBLE_USE = """\
## Responsible use

- A face is personal data, and so are the codes made from it: they show what the person looks like. Ask people before
  you collect, edit or publish their pictures, and delete codes together with photos.
- Say that a picture was edited wherever it is shown; a caption or a visible mark, and the file's metadata.
- No identification, verification or surveillance. The identity code was not made for it and fails without a sign.
- Faces unlike those in the training data come out worse; look at errors by group before you rely on anything."""


def model_card(
    config: NetworkConfig,
    morphable: MorphableModel | None = None,
    *,
    licence: str | None = None,
    training_data: str | None = None,
    data_licence: str | None = None,
    measures: Mapping[str, float | str] | None = None,
    measured_on: str | None = None,
    notes: str | None = None,
) -> ModelCard:
    """The card of a network; what is not given is said to be unknown.

    Args:
        config: Its settings.
        morphable: Its morphable model.
        licence: Of the weights: an identifier of the hub, such as "cc-by-nc-4.0". Data and morphable model may demand
            one.
        training_data: What it was trained on, in a sentence.
        data_licence: Under which terms those data may be used.
        measures: Results by name with unit.
        measured_on: What the measures were taken on.
        notes: Anything else worth knowing, such as how long it was trained; Markdown.

    Example:
        >>> card = model_card(NetworkConfig(), training_data="4000 rendered faces.", licence="apache-2.0")
        >>> card.data.license, "4000 rendered faces" in card.text
        ('apache-2.0', True)
    """
    results = [
        EvalResult(
            task_type="image-to-image",
            dataset_type="faces",
            dataset_name=measured_on or "unknown",
            metric_type=name,
            metric_value=value,
        )
        for name, value in (measures or {}).items()
        if isinstance(value, int | float)
    ]
    data = ModelCardData(
        library_name="multilinear-faces",
        pipeline_tag="image-to-image",
        license=licence,
        tags=list(TAGS),
        model_name="Neuro-tensorial face autoencoder",
        eval_results=results or None,
    )
    sections = [
        "# Neuro-tensorial face autoencoder",
        f"Takes an aligned photo of a face, {config.size} x {config.size} pixels, apart into separate codes for"
        f" identity ({config.identity} numbers), expression ({config.expression}), pose (9), light (9), mask"
        f" ({config.mask}) and background ({config.background}), and puts codes together again to a picture, its"
        " albedo, normals and shading. After Wang, Shu, Cheng, Panagakis, Samaras, Zafeiriou, *An Adversarial"
        " Neuro-Tensorial Approach For Learning Disentangled Representations*"
        " ([arXiv 1711.10402](https://arxiv.org/abs/1711.10402)).",
        _INTENDED_USE,
        _USE,
        "## Training data",
        f"{training_data or 'Not recorded.'} Terms of use: {data_licence or 'not recorded; ask whoever trained it'}."
        " The terms of the photos bind the weights, too. No label of a person or of an expression is read in training.",
        "## Morphable model",
        _of_morphable(config, morphable),
        "## Measures",
        _of_measures(measures, measured_on),
        "## Limits",
        f"One face a picture, aligned by its landmarks, at {config.size} x {config.size} pixels. Poses far from the"
        " camera's axis, hands, glasses and hats in front of the face, coloured light and hard shadows are outside of"
        " what the model can say. Codes are separate only as far as the measures show; a swap may carry a little of"
        " what it should leave.",
        _RESPONSIBLE_USE,
        *(["## Notes", notes] if notes else []),
    ]
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n")


def _of_morphable(config: NetworkConfig, morphable: MorphableModel | None) -> str:
    sizes = f"{config.morphable_identity} identity and {config.morphable_expression} expression components"
    if morphable is None:
        return f"One with {sizes}; it is not part of this model, which encodes and decodes without it."
    return (
        f"{morphable.name}, with {sizes}; licence: {morphable.licence}; source: {morphable.source}. Where its licence"
        " forbids to pass it on, leave out `morphable.safetensors`: the network encodes and decodes without it."
    )


def _of_measures(measures: Mapping[str, float | str] | None, measured_on: str | None) -> str:
    if not measures:
        return "None recorded. `facemodels evaluate` takes them."
    rows = [
        f"| {name} | {value:.4g} |" if isinstance(value, float) else f"| {name} | {value} |"
        for name, value in measures.items()
    ]
    return "\n".join([f"| on {measured_on or 'unknown data'} | |", "| --- | --- |", *rows])
