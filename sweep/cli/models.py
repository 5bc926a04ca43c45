"""Commands about single models: measure any checkpoint, attack one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sweep.console import console, user_errors

app = typer.Typer()

_NORMALISATION = "of weights that carry none: none, or mean/std as 0.49,0.48,0.45/0.25,0.24,0.26"


@app.command()
def measure(
    source: Annotated[
        str, typer.Argument(help="a .safetensors or .pt file, or package.module:function")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="as for launch.py: dataset=cifar10 threat.eps=8/255 measures=paper"),
    ] = None,
    architecture: Annotated[
        str | None, typer.Option(help="of the checkpoint, e.g. resnet18 or wrn28_10")
    ] = None,
    normalisation: Annotated[
        str | None,
        typer.Option(help=f"{_NORMALISATION}, or dataset: of the data set's training images"),
    ] = None,
) -> None:
    """Evaluate and measure any model on a data set, like the models of a study."""
    import torch

    from defenses import datasets
    from defenses.numerics import numerics
    from defenses.spec import DatasetSpec, Threat
    from sweep import compose, external, steps
    from sweep.console import show_values
    from sweep.convert import to_dataclass
    from sweep.setting import Evaluation, Runtime, select_measures
    from sweep.task import resolve_device

    with user_errors():
        with compose.hydra_context():
            config = compose.compose_plain(overrides or [])
        spec = to_dataclass(DatasetSpec, config["dataset"], "dataset")
        threat = to_dataclass(Threat, config["threat"], "threat")
        evaluation = to_dataclass(Evaluation, config["evaluation"], "evaluation")
        chosen = select_measures(config)
        runtime = to_dataclass(Runtime, {k: config[k] for k in ("device", "torch_threads")})
        device = resolve_device(runtime.device)
        torch.set_num_threads(runtime.torch_threads)  # as a study's tasks do: it changes last bits
        given = None
        if normalisation is not None and normalisation != "dataset":
            given = external.read_normalisation(normalisation)
        cache = compose.results_dir(config) / "datasets"
        data = datasets.load(spec, extra_data=False, cache=cache, device=device)
        if normalisation == "dataset":
            given = data.normalisation
        model = external.load_model(
            source, architecture=architecture, normalisation=given, device=device
        )
        external.require_fit(model, data, source)
        wanted = list(steps.metric_definitions(evaluation, threat))
        with numerics(device):
            metrics, _ = steps.evaluate(model, data, threat, evaluation, wanted, {})
            measured: dict[str, Any] = {}
            steps.measure(
                model,
                data,
                list(steps.columns(chosen.names)),
                threat=threat,
                measuring=chosen,
                initial_state=None,
                on_value=lambda name, value, _: measured.update({name: value}),
            )
    show_values(source, metrics, measured)


@app.command()
def attack(
    picture: Annotated[Path, typer.Argument(help="an image file")],
    model: Annotated[
        str, typer.Option(help="a torchvision classifier, e.g. resnet50, or a checkpoint's path")
    ] = "resnet50",
    eps: Annotated[str, typer.Option(help="size of the perturbation, e.g. 2/255")] = "2/255",
    norm: Annotated[str, typer.Option(help="linf, l2")] = "linf",
    method: Annotated[str, typer.Option(help="pgd, fgsm, apgd, square")] = "pgd",
    label: Annotated[
        str | None, typer.Option(help="the true class; default: what the model sees")
    ] = None,
    target: Annotated[str | None, typer.Option(help="the class to be seen instead")] = None,
    steps: Annotated[int, typer.Option(help="steps, or queries for square")] = 40,
    architecture: Annotated[str | None, typer.Option(help="of a checkpoint")] = None,
    normalisation: Annotated[str | None, typer.Option(help=_NORMALISATION)] = None,
    image_size: Annotated[int | None, typer.Option(help="of a checkpoint's images")] = None,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="an untrained torchvision model")
    ] = False,
    download: Annotated[
        bool, typer.Option("--download", help="fetch torchvision's weights")
    ] = False,
    output: Annotated[Path, typer.Option(help="folder for the figure and the image")] = Path(
        "attack"
    ),
) -> None:
    """Attack one picture: top-5 before and after, a figure, and the adversarial image."""
    from sweep import picture as pictures
    from sweep.convert import number
    from sweep.external import read_normalisation
    from sweep.picture_figure import save

    with user_errors():
        if Path(model).suffix or ":" in model:
            classifier = pictures.checkpoint_classifier(
                model,
                architecture=architecture,
                normalisation=None if normalisation is None else read_normalisation(normalisation),
                image_size=image_size,
            )
        else:
            classifier = pictures.torchvision_classifier(
                model, weights="random" if random_weights else "pretrained", download=download
            )
        result = pictures.attack_picture(
            pictures.read_picture(picture, classifier),
            classifier,
            eps=number("eps", eps),
            norm=norm,  # type: ignore[arg-type] # checked there
            method=method,  # type: ignore[arg-type] # checked there
            label=label,
            target=target,
            steps=steps,
        )
        written = save(result, output)
    for line in result.lines():
        console.print(line, markup=False)
    for path in written:
        console.print(str(path), markup=False)
