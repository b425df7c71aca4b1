"""Z0: the adversarial autoencoder whose one code the paper compares its codes with (section 4.3, Figures 6 and 7).

The same convolutions as our network, one code of 128 numbers, no factors. A second network tells codes from draws of a
standard normal distribution, and the encoder learns to deceive it, so that the codes as a whole follow that
distribution. One that learnt from rendered faces comes with the package.
"""

import dataclasses
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from facemodels.config import SIZE
from facemodels.data.dataset import Faces, PreparedSet
from facemodels.data.sources import digest
from facemodels.errors import InputError
from facemodels.files import check_place, read_tensors, write_tensors
from facemodels.networks import Encoder, UpsamplingDecoder, channels_last
from facemodels.precision import fast_bfloat16
from facemodels.progress import progress_bar

SHIPPED_Z0 = Path(__file__).parents[1] / "weights" / "z0.safetensors"
"""The one that comes with the package, for pictures of 64 pixels.

`facemodels synthesise wild --design wild --count 7000 --held-out 0.03`, `facemodels train-baseline wild --steps 7500
--batch 16`, then `AdversarialAutoencoder.load("z0.safetensors").save(SHIPPED_Z0)`.
"""

_FORMAT = "facemodels.AdversarialAutoencoder/1"
_BATCH = 100  # faces encoded at once
_SAVE_SECONDS = 60.0
_WARM_UP = 50  # steps


@dataclass(frozen=True)
class AdversarialConfig:
    """Sizes and training of Z0; the paper gives none of them.

    Attributes:
        size: Side of the pictures in pixels.
        channels: Filters of the convolutions, outermost first: those of our network.
        intermediate: Size of the vector between convolutions and code, as in our network.
        features: Size of the code.
        hidden: Units in each of the two hidden layers of the network that judges codes; 1000 in the source.
        steps: Length of the training.
        batch: Faces at once.
        learning_rate: Peak, of both networks; it rises over 50 steps and falls along a cosine to a hundredth.
        prior: Weight of the adversarial term beside half the squared error of the picture.
        seed: Fixes weights, order and draws.
    """

    size: int = SIZE
    channels: tuple[int, ...] = (48, 24, 24)
    intermediate: int = 128
    features: int = 128
    hidden: int = 1000
    steps: int = 3000
    batch: int = 32
    learning_rate: float = 2e-3
    prior: float = 0.3
    seed: int = 0

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Settings from JSON."""
        return cls(**{**values, "channels": tuple(values["channels"])})


class AdversarialAutoencoder(nn.Module):
    """Encoder, one code, upsampling decoder, and, for training, the network that judges codes.

    Args:
        config: Sizes; the settings of training stay with the network, too.
        judge: Whether it has the network that judges codes.

    Attributes:
        learnt_from: The set it was trained on, in words; empty before.

    Example:
        >>> model = AdversarialAutoencoder(AdversarialConfig(channels=(4, 4, 4), intermediate=8, hidden=8))
        >>> model.encode(torch.rand(2, 3, 64, 64)).shape, model(torch.rand(2, 3, 64, 64)).shape
        (torch.Size([2, 128]), torch.Size([2, 3, 64, 64]))

    Reference:
        Makhzani, Shlens, Jaitly, Goodfellow, Frey, "Adversarial Autoencoders", arXiv 1511.05644, section 2.
    """

    def __init__(self, config: AdversarialConfig, judge: bool = True):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.channels, config.intermediate, config.size)
        self.head = nn.Linear(config.intermediate, config.features)
        self.decoder = UpsamplingDecoder(config.features, config.channels, 3, config.size)
        self.judge = _judge(config) if judge else None
        self.learnt_from = ""

    def perceive(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n features"]:
        """The codes, with gradients."""
        return self.head(self.encoder(images)[0]).float()

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n features"]:
        """The codes of any number of aligned crops in [0, 1], in batches."""
        return torch.cat([self.perceive(part) for part in images.split(_BATCH)])

    def decode(self, codes: Float[Tensor, "n features"]) -> Float[Tensor, "n 3 h w"]:
        """Pictures in [0, 1]."""
        return self.decoder(codes).float().sigmoid()

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
        """The reconstruction."""
        return self.decode(self.perceive(images))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a network that `train_adversarial` has finished or `save` has written, in evaluation mode.

        Raises:
            InputError: There is no such file, it is damaged, holds something else, or an unfinished training.
        """
        tensors, texts = _read(Path(path))
        config = AdversarialConfig.from_dict(json.loads(texts["config"]))
        if int(texts["step"]) < config.steps:
            raise InputError(
                f"{path} holds a training that was interrupted at step {texts['step']} of {config.steps};"
                " finish it with the same `facemodels train-baseline`"
            )
        weights = {name: value.float() for name, value in _under("model", tensors).items()}
        model = cls(config, judge=any(name.startswith("judge.") for name in weights))
        model.load_state_dict(weights)
        model.learnt_from = texts["set"]
        return model.eval()

    def save(self, path: str | Path) -> None:
        """Write what encoding and decoding need, in float16; `load` reads it.

        Args:
            path: File ending in `.safetensors`.

        Raises:
            InputError: The disk is full or cannot be written to.
        """
        weights = {name: value.half() for name, value in self.state_dict().items() if not name.startswith("judge.")}
        record = {
            "format": _FORMAT,
            "config": json.dumps(dataclasses.asdict(self.config)),
            "set": self.learnt_from,
            "step": str(self.config.steps),
        }
        write_tensors(Path(path), {f"model/{name}": value for name, value in weights.items()}, record)


def train_adversarial(
    prepared: PreparedSet,
    path: str | Path,
    config: AdversarialConfig | None = None,
    *,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> AdversarialAutoencoder:
    """Train Z0 on the split "train" of a prepared set, or go on with it, or read it if it is finished.

    In bfloat16 where the device computes in it, else in float32.

    The order of faces and every draw depend on the seed and the step alone, so that an interrupted training ends with
    the numbers of one that was not. Labels are not read.

    Args:
        prepared: The set.
        path: File of the network, ending in `.safetensors`; it also keeps how far the training is.
        config: Sizes and length; by default those of `AdversarialConfig` at the set's size.
        device: Where to train.
        progress: Show a progress bar.

    Returns:
        The network, on the CPU and in evaluation mode.

    Raises:
        InputError: The set has no faces to train on or another size, or the file holds another training.
        KeyboardInterrupt: It was asked to stop; the file holds what was done.

    Reference:
        Makhzani et al., arXiv 1511.05644: reconstruction, then discriminator and encoder against each other.
    """
    path, device = Path(path), torch.device(device)
    config = config or AdversarialConfig(size=prepared.size)
    check_place(path)
    prepared.require_size(config.size)
    record = {
        "format": _FORMAT,
        "config": json.dumps(dataclasses.asdict(config)),
        "set": _name(prepared),
        "preparation": digest([json.dumps(prepared.info, sort_keys=True)]),  # sets of one name differ in it
    }
    tensors, step = _begun(path, record)
    if step == config.steps:
        return AdversarialAutoencoder.load(path)
    trainer = _Trainer(prepared.faces("train").to(device), config, device)
    if tensors:
        trainer.load(tensors)
    saved = time.monotonic()
    with progress_bar(total=config.steps, initial=step, description="train Z0", disable=not progress) as bar:
        try:
            while step < config.steps:
                trainer.step(step)
                step += 1
                bar.update()
                if time.monotonic() - saved > _SAVE_SECONDS:
                    write_tensors(path, trainer.tensors(), record | {"step": str(step)})
                    saved = time.monotonic()
        finally:
            write_tensors(path, trainer.tensors(), record | {"step": str(step)})
    return AdversarialAutoencoder.load(path)


class _Trainer:
    """The networks and their optimizers."""

    def __init__(self, faces: Faces, config: AdversarialConfig, device: torch.device):
        self.faces, self.config, self.device = faces, config, device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model = AdversarialAutoencoder(config).to(device)
        channels_last(self.model)
        assert self.model.judge is not None
        self.judge = self.model.judge
        judging = list(self.judge.parameters())
        coding = [
            weight for part in (self.model.encoder, self.model.head, self.model.decoder) for weight in part.parameters()
        ]
        self.optimizers = {
            "coder": torch.optim.AdamW(coding, config.learning_rate),
            "judge": torch.optim.AdamW(judging, config.learning_rate, betas=(0.5, 0.999)),
        }

    def step(self, number: int) -> None:
        """One step of the autoencoder, then one of the judge."""
        config, model = self.config, self.model
        rate = config.learning_rate * min(1, (number + 1) / _WARM_UP)
        rate *= 0.505 + 0.495 * math.cos(math.pi * number / config.steps)
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = rate
        draws = torch.Generator().manual_seed(config.seed * 1_000_003 + number)
        rows = torch.randint(len(self.faces), (config.batch,), generator=draws).to(self.device)
        prior = torch.randn(config.batch, config.features, generator=draws).to(self.device)
        images = self.faces[rows].pictures().contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=fast_bfloat16(self.device)):
            codes = model.perceive(images)
            pictures = model.decode(codes)
        error = 0.5 * (pictures - images).square().sum() / len(images)
        self._descend("coder", error + config.prior * _entropy(_judged(self.judge, codes), True))
        self._descend("judge", _entropy(self.judge(prior), True) + _entropy(self.judge(codes.detach()), False))

    def _descend(self, name: str, objective: Tensor) -> None:
        self.optimizers[name].zero_grad(set_to_none=True)
        objective.backward()
        self.optimizers[name].step()

    def tensors(self) -> dict[str, Tensor]:
        """All that a resumed training needs."""
        tensors = {f"model/{name}": value for name, value in self.model.state_dict().items()}
        for name, optimizer in self.optimizers.items():
            for number, state in optimizer.state_dict()["state"].items():
                tensors |= {f"{name}/{number}/{entry}": value for entry, value in state.items()}
        return tensors

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Go on from `tensors`."""
        self.model.load_state_dict(_under("model", tensors))
        for name, optimizer in self.optimizers.items():
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in _under(name, tensors).items():
                number, entry = key.split("/")
                state.setdefault(int(number), {})[entry] = value
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _judge(config: AdversarialConfig) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(config.features, config.hidden),
        nn.ReLU(),
        nn.Linear(config.hidden, config.hidden),
        nn.ReLU(),
        nn.Linear(config.hidden, 1),
    )


def _judged(judge: nn.Module, codes: Tensor) -> Tensor:
    """What the judge says of codes, with gradients for the codes but none for the judge."""
    weights = {name: value.detach() for name, value in judge.named_parameters()}
    return torch.func.functional_call(judge, weights, (codes,))


def _entropy(logits: Tensor, real: bool) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


def _begun(path: Path, record: dict[str, str]) -> tuple[dict[str, Tensor], int]:
    """What an earlier call has done: its tensors and steps; nothing and 0 if there was none.

    Raises:
        InputError: The file holds another training.
    """
    if not path.exists():
        return {}, 0
    tensors, texts = _read(path)
    texts = {"preparation": record["preparation"]} | texts  # older files do not tell
    for key in ("config", "set", "preparation"):
        if texts.get(key) != record[key]:
            raise InputError(
                f"{path} was trained on another set or with other settings ({key} {texts.get(key)}, now {record[key]});"
                " choose another file, or remove it"
            )
    return tensors, int(texts["step"])


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    tensors, texts = read_tensors(path)
    if texts.get("format") != _FORMAT:
        raise InputError(f"{path} holds no adversarial autoencoder; `facemodels train-baseline` writes one")
    return tensors, texts


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(f"{prefix}/"): value for key, value in tensors.items() if key.startswith(f"{prefix}/")}


def _name(prepared: PreparedSet) -> str:
    """What a set is known by: where it came from, and how many faces it has."""
    seed = prepared.info.get("seed")
    faces, kind = len(prepared.split("train")), prepared.info.get("source")
    return f"{faces:,} faces of “{kind}”" + ("" if seed is None else f" (seed {seed})")
