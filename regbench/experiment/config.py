"""The YAML of an experiment, read strictly: every key known, every value in range.

The sections below are the schema; `python -m regbench.experiment.config` prints it as JSON Schema
(config/schema.json). Nothing here imports torch, since Snakemake reads it at every start.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from regbench.digests import Sha256
from regbench.experiment.values import (
    PRINTABLE,
    WRITTEN,
    Count,
    Label,
    Name,
    Radius,
    Reference,
    References,
    Seed,
    Seeds,
    Share,
    Values,
    canonical,
)


class Section(BaseModel):
    """What all sections share: an unknown key is an error, a number must be one."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Training(Section):
    """SGD, its rate multistep or cyclic. A key left out falls back to the level above."""

    epochs: Count | None = Field(None, description="passes over the training images")
    batch_size: Count | None = Field(None, description="images per step, m")
    learning_rate: Annotated[float, Field(gt=0, strict=True), WRITTEN] | None = Field(
        None, description="of the first epochs; a cyclic one's highest"
    )
    momentum: Annotated[float, Field(ge=0, lt=1, strict=True), WRITTEN] | None = None
    weight_decay: Annotated[float, Field(ge=0, strict=True), WRITTEN] | None = None
    milestones: list[Share] | None = Field(
        None, description="shares of the epochs from which on the rate is divided once more"
    )
    decay: Annotated[float, Field(gt=0, strict=True), WRITTEN] | None = Field(
        None, description="what the rate is multiplied by at each milestone"
    )
    cyclic: Annotated[float, Field(ge=0, lt=1, strict=True), WRITTEN] | None = Field(
        None,
        description="share of the training over which the rate rises from 0, step by step, to fall"
        " to 0 over the rest, without milestones; 0: by milestones",
    )
    crop_padding: Annotated[int, Field(ge=0, le=256, strict=True)] | None = Field(
        None, description="random crop: zero padding in pixels; 0: none"
    )
    flip: bool | None = Field(None, description="random horizontal flip")
    selection: Literal["ifgsm", "clean"] | None = Field(
        None, description="accuracy on the validation images that picks the best epoch"
    )
    selection_steps: Count | None = Field(
        None, description="steps of the I-FGSM on the validation images"
    )
    precision: Literal["fp32", "tf32", "bf16"] | None = Field(
        None, description="of the training; every verdict is in fp32"
    )
    compiled: Annotated[bool, Field(strict=True)] | None = Field(
        None, description="by PyTorch's compiler, for large networks on a GPU; rounds elsewhere"
    )


def _nothing_is_empty(value: Any) -> Any:
    return {} if value is None else value


class Member(BaseModel):
    """An entry whose further keys are the parameters of the class that it names."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    @property
    def parameters(self) -> dict[str, Any]:
        """The keys that belong to the class, fractions as numbers."""
        return {key: canonical(key, value) for key, value in (self.model_extra or {}).items()}


class Labelled(Member):
    """An entry that tables and figures show."""

    label: Label | None = Field(None, description="how tables and figures call it")


class Regularizer(Labelled):
    """Hyperparameters over those that rules/regularizers/NAME.smk declares."""

    regularizer: str | None = Field(None, description="the declared rule, if not the entry's name")
    seeds: Seeds | None = Field(None, description="in place of the experiment's")
    training: Training = Training()


Regularizers = dict[
    Name,
    Annotated[
        Regularizer, BeforeValidator(_nothing_is_empty, json_schema_input_type=Regularizer | None)
    ],
]


class Attack(Labelled):
    """One attack; `epsilon` if it differs from the data set's."""

    attack: Reference | None = Field(
        None, description="a file of regbench/attacks/, or package.module:Class"
    )
    epsilon: Radius | None = None
    images: Count | None = Field(None, description="in place of the evaluation's `images`")
    pieces: Count = Field(
        1, description="so many runs of images, judged one by one or side by side as jobs"
    )
    source: Name | None = Field(
        None,
        description="an entry of the data set's `sources` or `pretrained`: craft on it, not on the"
        " judged one",
    )
    sweep: Annotated[dict[str, Values], Field(min_length=1, max_length=1)] | None = Field(
        None, description="one parameter with several values: an attack for each, and a curve"
    )


class Model(Member):
    """One network, and what differs for it alone."""

    model: Reference | None = Field(
        None, description="a file of regbench/models/, or package.module:Class"
    )
    training: Training = Training()
    regularizers: Regularizers = {}


Models = dict[
    Name, Annotated[Model, BeforeValidator(_nothing_is_empty, json_schema_input_type=Model | None)]
]
Suite = dict[
    Name,
    Annotated[Attack, BeforeValidator(_nothing_is_empty, json_schema_input_type=Attack | None)],
]
Suites = dict[Name, Annotated[Suite, Field(min_length=1)]]


class Source(Member):
    """A network that is trained only for adversarial images to be crafted on."""

    model: Reference = Field(description="a file of regbench/models/, or package.module:Class")
    regularizer: Name = "natural"
    seed: Seed = 0
    training: Training = Training()


class Pretrained(Labelled):
    """A network that was trained elsewhere, judged beside those that are trained here."""

    model: Reference = Field(
        description="an entry of `models`, a file of regbench/models/, or package.module:Class"
    )
    weights: Annotated[str, Field(min_length=1, pattern=PRINTABLE)] = Field(
        description="a state dict, .pt or .safetensors; a relative path is under the data root"
    )
    sha256: Sha256 = Field(description="of that file")


class DataSet(Member):
    """One data set, its protocol, and what differs for it alone."""

    dataset: Reference | None = Field(
        None, description="a file of regbench/data/, or package.module:Class"
    )
    epsilon: Radius = Field(description="attack radius ε, L∞, images in [0, 1]")
    validation: Count = Field(description="training images set apart to pick the best epoch")
    split_seed: Seed = 0
    training: Training = Training()
    models: Models = {}
    regularizers: Regularizers = {}
    pretrained: dict[Name, Pretrained] = Field(
        {}, description="networks that were trained elsewhere: judged like those trained here"
    )
    sources: dict[Name, Source] = Field(
        {}, description="trained networks that an attack may craft on: black-box transfer"
    )
    attacks: Suites | None = Field(None, description="in place of the experiment's")


class Evaluation(Section):
    """Which weights are attacked, on which images."""

    checkpoint: Literal["best", "last"] = "best"
    split: Literal["test", "validation"] = "test"
    precision: Literal["fp32", "tf32"] = Field(
        "fp32", description="that attacks craft in; what they craft is classified in fp32"
    )
    images: Count | None = Field(None, description="only the first so many; none: all")
    batch_size: Count = 500
    seed: Seed = 0


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError(f"expected an odd number, so that ε is among the radii, got {value}")
    return value


class Diagnostics(Section):
    """What is measured of each trained network besides accuracy: does it mask its gradients?"""

    images: Count = Field(1000, description="of the evaluation's split, the first so many")
    points: Annotated[int, Field(ge=3, le=101, strict=True), AfterValidator(_odd)] = Field(
        9, description="radii along the FGSM direction, from 0 to 2ε; odd, so that ε is one"
    )
    gallery: Annotated[int, Field(ge=0, le=20, strict=True)] = Field(
        5, description="images of different classes shown clean and attacked; 0: none"
    )


def _switch(value: Any) -> Any:
    return {True: {}, False: None}[value] if isinstance(value, bool) else value


class Experiment(Section):
    """What is compared: data sets × models × regularizers × seeds, under each attack."""

    experiment: Name = Field(description="names reports/EXPERIMENT/")
    data_root: Annotated[str, Field(pattern=PRINTABLE)] = Field(
        "data", description="where torchvision's data sets lie"
    )
    download: bool = Field(False, strict=True)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    runs_per_gpu: Count = Field(1, description="trainings or suites of attacks that share a GPU")
    deterministic: bool = Field(
        False, strict=True, description="on a GPU: the same bits each time, by slower kernels"
    )
    time_limit: Annotated[float, Field(gt=0, strict=True), WRITTEN] | None = Field(
        None,
        description="hours after which a training is ended, which is then its result; to train it"
        " longer, raise this and delete its folder",
    )
    seeds: Seeds | None = Field(None, description="of each training; needed where there are any")
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    regularizers: Regularizers = {}
    attacks: Suites = {}
    diagnostics: Annotated[
        Diagnostics | None,
        BeforeValidator(_switch, json_schema_input_type=Diagnostics | bool | None),
    ] = Field(Diagnostics(), description="of each trained network; false: none are taken")
    gap: tuple[Name, Name] | None = Field(
        None, description="two attacks; accuracy under the first minus the second is a column"
    )
    references: References | None = Field(
        None,
        description="regularizers or pretrained networks that each method is compared with, image"
        " by image; none given: fgsm_at and pgd_at, as far as they are among them",
    )
    margin: Annotated[float, Field(gt=0, le=100, strict=True), WRITTEN] = Field(
        5.0,
        description="percentage points within which two methods are on par, or published numbers"
        " agree",
    )
    datasets: Annotated[dict[Name, DataSet], Field(min_length=1)]


if __name__ == "__main__":
    print(json.dumps(Experiment.model_json_schema(), indent=2, ensure_ascii=False))
