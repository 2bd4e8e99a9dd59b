#!/usr/bin/env python
r"""Open a page that shows the segmentation of a street image and the changes by each adapter.

    make app
    .venv-app/bin/python tools/app.py --config-file configs/streets_to_real.py \
        --weights results/streets_to_real/recyclelora.pth --images photos/

Drop an image on the page or choose an example, and switch the adapters on and off. ``--against``
adds a second run: give its weights, its config if it differs from --config-file, and its overrides.
Only this computer can open the page, unless ``--host`` has another address. Ctrl-C stops the tool.
"""

import argparse
import html
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

try:
    import gradio as gr
    import numpy as np
    from PIL import Image

    from drawn_streets import draw_street
    from recyclelora.analysis.analyze import Run, label_runs
    from recyclelora.analysis.explore import (
        Exploration,
        Explorer,
        changed_classes,
        confidence_colors,
        read_photograph,
    )
    from recyclelora.common.command_line import path_argument, run_command, tolerate_any_text
    from recyclelora.common.validation import check_integer, format_error
    from recyclelora.data import CLASSES, COLORS
    from recyclelora.engine.media_files import find_photographs
except ModuleNotFoundError as error:
    sys.exit(
        f"error: the module {error.name} is not installed: run 'make app', then "
        ".venv-app/bin/python tools/app.py"
    )
except KeyboardInterrupt:  # these imports take seconds
    print("stopped by Ctrl-C", file=sys.stderr)
    sys.exit(130)

MAX_UPLOAD = "50mb"
SESSIONS = 16  # browser tabs whose results are kept in memory
MOST_EXAMPLES = 9
DRAWN = ("day", "dusk", "night", "fog", "rain", "snow")  # the examples without --images
HEX = {name: "#{:02x}{:02x}{:02x}".format(*color) for name, color in zip(CLASSES, COLORS)}
SCALE = [
    "rgb({}, {}, {})".format(*color) for color in confidence_colors(np.linspace(0, 1, 11)).tolist()
]
INTRODUCTION = """# What the adapters learned
Drop a street image here or choose an example. An adapter that is off has its initial value. The
changes by an adapter are the differences between the full model and the model without it.
"""
CSS = """
.html-container { padding: 0 !important; }
.message { border-left: 4px solid #d55e00; padding: 0.5rem 0.75rem; overflow-wrap: anywhere; }
.scale { display: flex; align-items: center; gap: 0.5rem; font-size: 0.9rem; }
.scale i { flex: 1; height: 0.8rem; border-radius: 3px; }
.legend-item { outline: 1px solid var(--border-color-primary); }
#examples .grid-wrap { min-height: 0; }
#examples .grid-container { grid-template-columns: repeat(3, minmax(0, 1fr)); padding-top: 1rem; }
"""


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, help="the config of the run")
    parser.add_argument("--weights", required=True, help="its checkpoint")
    words = "WEIGHTS [CONFIG] [key=value]"
    parser.add_argument("--against", nargs="+", metavar=words, help="a second run")
    parser.add_argument("--images", type=path_argument, help="examples (default: drawn streets)")
    parser.add_argument("--block", type=int, help="block of the feature changes (default: last)")
    parser.add_argument("--host", default="127.0.0.1", help="address (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port (default: the first free one from 7860)")
    parser.add_argument("overrides", nargs="*", help="overrides key=value of the run")
    return parser.parse_args(arguments)


class Panel:
    """The pictures of one run on the page."""

    def __init__(self, name: str, explorer: Explorer) -> None:
        gr.Markdown(f"### {html.escape(name)}")
        with gr.Row():
            segmentation = gr.AnnotatedImage(
                label="Segmentation", color_map=HEX, min_width=260, elem_classes="segmentation"
            )
            with gr.Column(min_width=260):
                confidence = _picture("Confidence")
                gr.HTML(
                    f'<div class="scale">0<i style="background:linear-gradient(90deg, '
                    f'{", ".join(SCALE)})"></i>1</div>',
                )
        self.kinds = explorer.kinds
        self.outputs: list[gr.components.Component] = [segmentation, confidence]
        for kind in self.kinds:
            gr.Markdown(f"#### What {kind} changes")
            text = gr.HTML(padding=False)
            with gr.Row():
                changed = gr.AnnotatedImage(
                    label="Pixels of another class", color_map=HEX, min_width=260
                )
                features = _picture(f"Feature change in {explorer.block} (PCA)")
            self.outputs += [text, changed, features]

    def show(self, found: Exploration | None, on: Sequence[str]) -> list:
        """Return the values of ``outputs``, which are None without an image."""
        if found is None:
            return [None] * len(self.outputs)
        classes, confidence = found.prediction(on)
        everywhere = np.ones_like(classes, dtype=bool)
        values = [
            (found.image, _masks(classes, everywhere, 0.6)),
            confidence_colors(confidence),
        ]
        full = found.prediction(self.kinds).classes
        for kind in self.kinds:
            masks = _masks(full, found.changed(kind), 1.0)
            picture = changed_classes(found, kind)
            values += [_summary(found, kind), (picture, masks), found.colors[kind]]
        return values


def _picture(label: str) -> gr.Image:
    """Return a read-only image without the button that shares it on a public site."""
    return gr.Image(
        label=label, interactive=False, min_width=260, buttons=["download", "fullscreen"]
    )


def _masks(classes: np.ndarray, where: np.ndarray, opacity: float) -> list:
    """Return the mask and the name of every class that occurs."""
    return [
        (opacity * (where & (classes == index)), CLASSES[index])
        for index in np.unique(classes[where])
    ]


def _summary(found: Exploration, kind: str) -> str:
    """Return a text on the share of pixels that an adapter changes, and the frequent changes."""
    text = f"{kind} changes the class of {found.changed(kind).mean():.1%} of the pixels"
    most = [
        f"{CLASSES[before]} → {CLASSES[after]} {share:.1%}"
        for before, after, share in found.transitions(kind)
        if share >= 0.0005
    ]
    return f"<p>{text}{': ' if most else '.'}{', '.join(most)}</p>"


def build_page(explorers: Mapping[str, Explorer], examples: Sequence[Path]) -> gr.Blocks:
    """Return the page without serving it."""
    kinds = [kind for kind in ("main", "sub") if any(kind in e.kinds for e in explorers.values())]
    with gr.Blocks(
        title="What the adapters learned", analytics_enabled=False, delete_cache=(3600, 3600)
    ) as page:
        gr.Markdown(INTRODUCTION)
        explored = gr.State()
        with gr.Row():
            with gr.Column(scale=2, min_width=280):
                # gr.Image would open the file itself and show other messages.
                upload = gr.File(
                    label="Street image", file_types=["image"], height=140, elem_id="upload"
                )
                message = gr.HTML(visible=False)
                gallery = gr.Gallery(
                    [str(file) for file in examples],
                    label="Examples",
                    columns=3,
                    height="auto",
                    object_fit="cover",
                    allow_preview=False,
                    interactive=False,
                    buttons=[],
                    elem_id="examples",
                )
                photograph = _picture("Input")
                switches = gr.CheckboxGroup(
                    kinds, value=kinds, label="Adapters that are on", visible=bool(kinds)
                )
            panels = []
            for name, explorer in explorers.items():
                with gr.Column(scale=5 if len(explorers) == 1 else 3, min_width=300):
                    panels.append(Panel(name, explorer))
        outputs = [output for panel in panels for output in panel.outputs]

        def show(found: Sequence[Exploration] | None, on: Sequence[str]) -> list:
            given = found or [None] * len(panels)
            return [v for panel, one in zip(panels, given) for v in panel.show(one, on)]

        def explore(file: str | None, on: Sequence[str]) -> list:
            found, pixels, sentence = None, None, ""
            try:
                if file is not None:
                    pixels = read_photograph(file)
                    found = [explorer.explore(pixels) for explorer in explorers.values()]
            except Exception as error:
                sentence = format_error(error).replace(file, Path(file).name)
            alert = f'<div class="message" role="alert">{html.escape(sentence)}</div>'
            return [found, gr.HTML(alert, visible=bool(sentence)), pixels, *show(found, on)]

        def choose(on: Sequence[str], event: gr.SelectData) -> list:
            return [None, *explore(str(examples[event.index]), on)]

        results = [explored, message, photograph, *outputs]
        # One image at a time, because all browser tabs use the same models.
        alone = {"concurrency_id": "models", "concurrency_limit": 1}
        gr.on([upload.upload, upload.clear], explore, [upload, switches], results, **alone)
        gallery.select(choose, [switches], [upload, *results], **alone)
        switches.change(show, [explored, switches], outputs, show_progress="hidden")
    return page


def draw_examples(folder: Path) -> list[Path]:
    """Write one drawn street for each kind of light and weather; return the files."""
    files = [folder / f"{kind}.png" for kind in DRAWN]
    for file in files:
        Image.fromarray(draw_street(0, 3, file.stem, height=256, width=512)[0]).save(file)
    return files


def serve(page: gr.Blocks, *, host: str, port: int | None) -> None:
    """Serve the page until Ctrl-C."""
    try:
        _, address, _ = page.queue(max_size=SESSIONS).launch(
            server_name=host,
            server_port=port,
            share=False,
            prevent_thread_lock=True,
            quiet=True,
            show_error=True,
            max_file_size=MAX_UPLOAD,
            state_session_capacity=SESSIONS,
            footer_links=[],
            ssr_mode=False,
            css=CSS,
        )
        print(f"the page is at {address} (Ctrl-C stops it)", flush=True)
        threading.Event().wait()
    finally:
        page.close(verbose=False)


def main(arguments: list[str] | None = None) -> None:
    """Serve the page; for invalid input, print one sentence and exit with code 1."""
    tolerate_any_text()
    args = parse(arguments)
    try:
        if args.port is not None:
            check_integer("--port", args.port, least=1, most=65_535)
        runs = [Run(args.weights, args.config_file, args.overrides)]
        if args.against:
            runs.append(Run.from_words(args.against, args.config_file))
        photographs = list(find_photographs([args.images]).values()) if args.images else []
        explorers = {
            label: Explorer.from_run(run, block=args.block)
            for label, run in label_runs(runs).items()
        }
        with tempfile.TemporaryDirectory() as folder:
            examples = photographs[:MOST_EXAMPLES] or draw_examples(Path(folder))
            serve(build_page(explorers, examples), host=args.host, port=args.port)
    except Exception as error:
        sys.exit(f"error: {format_error(error)}")


if __name__ == "__main__":
    run_command(main)
