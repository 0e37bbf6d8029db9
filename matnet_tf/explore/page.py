# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The page itself, in Gradio: controls, and which of the `Views` answers to which."""

from __future__ import annotations

import functools
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

# Gradio and what it brings read these when they are imported. Nothing is sent anywhere.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = os.environ["HF_HUB_OFFLINE"] = "1"

import gradio as gr

from matnet_tf.explore.views import Views

__all__ = ["launch"]

_FOLDER = pathlib.Path(__file__).parent
_SEED = {"label": "Seed", "value": 0, "precision": 0}
_LATEST = {"show_progress": "minimal", "trigger_mode": "always_last", "api_name": False}


def _slider(*arguments: Any, **more: Any) -> gr.Slider:
    """A slider that leaves the checks to `Views`, whose errors are one line on the page."""
    slider = gr.Slider(*arguments, **more)
    # Gradio's own fails with a traceback if the box with the number is empty. It is not overridden
    # in a subclass, for which Gradio would write a file next to this one.
    slider.preprocess = lambda payload: payload
    return slider


def launch(views: Views, title: str, port: int) -> gr.Blocks:
    """Serves the page on 127.0.0.1, in threads of its own.

    Args:
      views: What the page shows.
      title: Its title.
      port: The port.

    Raises:
      OSError: If the port is taken.
    """
    page = _page(views, title)
    font = [gr.themes.Font("system-ui"), gr.themes.Font("sans-serif")]
    page.launch(
        server_name="127.0.0.1",
        server_port=port,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        ssr_mode=False,
        footer_links=[],
        enable_monitoring=False,
        max_file_size="100mb",
        theme=gr.themes.Base(font=font, font_mono=[gr.themes.Font("monospace")]),
        css_paths=[_FOLDER / "page.css"],
    )
    return page


def _page(views: Views, title: str) -> gr.Blocks:
    with gr.Blocks(title=title, analytics_enabled=False) as page:
        gr.Markdown(f"# {title}")
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                image = _canvas(views, "The image")
            with gr.Column(scale=2, min_width=300):
                if views.conditional:
                    _complete(page, views, image)
                else:
                    _unconditional(page, views, image)
    return page


def _unconditional(page: gr.Blocks, views: Views, image: gr.HTML) -> None:
    open_tab = gr.State("Levels")
    parts = {"Levels": _levels, "Between": _between, "Sample": _sample, "Score": _score}
    with gr.Tabs():
        for name, part in parts.items():
            with gr.Tab(name) as tab:
                answer, inputs, controls, shown = part(views, image)
            tab.select(lambda name=name: name, outputs=open_tab, api_name=False).then(
                answer, inputs, shown, **_LATEST
            )
            # Only the open tab follows the image.
            gr.on(
                [image.change, *([page.load] if name == "Levels" else [])],
                _if_open(name, answer),
                [open_tab, *inputs],
                shown,
                **_LATEST,
            )
            if controls:
                gr.on(controls, answer, inputs, shown, **_LATEST)


def _if_open(name: str, answer: Callable) -> Callable:
    return lambda tab, *inputs: answer(*inputs) if tab == name else gr.skip()


# Tabs. Each returns what answers, its inputs, the events that ask again, and where it is shown.

Part = tuple[Callable, Sequence[Any], Sequence[Any], gr.HTML]


def _levels(views: Views, image: gr.HTML) -> Part:
    levels = views.model.config.num_levels
    kept = _slider(0, levels, value=levels, step=1, label="Levels kept, from the top")
    seed = gr.Number(**_SEED)
    return views.levels, [image, kept, seed], [kept.change, seed.change], _shown()


def _between(views: Views, image: gr.HTML) -> Part:
    names = list(views.model.config.level_names)
    shown = _shown()  # Above the controls, which are longer than a screen.
    with gr.Row():
        with gr.Column(min_width=260):
            second = _canvas(views, "The second image", 1)
        with gr.Column(min_width=260):
            levels = gr.CheckboxGroup(names, value=names, label="Levels that are mixed, top first")
            seed = gr.Number(**_SEED)
    events = [second.change, levels.change, seed.change]
    return views.between, [image, second, levels, seed], events, shown


def _sample(views: Views, image: gr.HTML) -> Part:
    del image
    scales = [f"{'x'.join(map(str, scale.shape))}" for scale in views.model.config.scales]
    with gr.Row():
        temperatures = [
            _slider(0, 1.5, value=1, step=0.05, label=f"Temperature, {name}", min_width=140)
            for name in ("top", *scales)
        ]
    seed = gr.Number(**_SEED)
    inputs = [seed, *temperatures]
    return views.sample, inputs, [part.change for part in inputs], _shown()


def _score(views: Views, image: gr.HTML) -> Part:
    start = gr.Button(f"Compare with {views.examples.source}")
    progress, shown = _shown(), _shown()
    start.click(views.compare, None, progress, show_progress="hidden", api_name=False).then(
        views.score, image, shown, **_LATEST
    )
    return views.score, [image], [], shown


def _complete(page: gr.Blocks, views: Views, image: gr.HTML) -> None:
    temperature = _slider(0, 1.5, value=1, step=0.05, label="Temperature")
    seed, shown = gr.Number(**_SEED), _shown()
    events = [page.load, image.change, temperature.change, seed.change]
    gr.on(events, views.complete, [image, temperature, seed], shown, **_LATEST)


def _shown() -> gr.HTML:
    return gr.HTML(js_on_load=None)


# The canvas.


def _canvas(views: Views, name: str, first: int = 0) -> gr.HTML:
    """A canvas with what fills it: a test image, or a file."""
    height, width, channels = views.model.config.image_shape
    gr.Markdown(f"**{name}**, {height}x{width} pixels")
    last = len(views.examples.x) - 1
    canvas = gr.HTML(
        views.example(min(first, last)),
        html_template=_html(name, height, width, channels, views.conditional),
        css_template="",
        js_on_load=(_FOLDER / "canvas.js").read_text(encoding="utf-8"),
        apply_default_css=False,
    )
    index = _slider(
        0, last, value=min(first, last), step=1, label="Test image", info=views.examples.source
    )
    upload, line = gr.UploadButton("Upload a picture", size="md"), _shown()

    def take(answer, source):
        value, text = answer(source)
        return (gr.skip() if value is None else value), text

    shown = [canvas, line]
    choose = functools.partial(take, views.chosen)
    index.change(choose, index, shown, show_progress="hidden", api_name=False)
    upload.upload(functools.partial(take, views.uploaded), upload, shown, api_name=False)
    return canvas


def _html(name: str, height: int, width: int, channels: int, hides: bool) -> str:
    pens = ["hide", "reveal"] if hides else []
    pens += ["white", "black", *(["colour"] if channels == 3 else [])]
    buttons = "".join(
        f'<button type="button" data-pen="{pen}" aria-pressed="{str(pen == pens[0]).lower()}">'
        f"{pen.capitalize()}</button>"
        for pen in pens
    )
    chooser = '<input type="color" value="#3366cc" aria-label="Colour of the pen">'
    size = max(1, round(width / (5 if hides else 10)))
    keys = "arrow keys move, space paints, shift and arrow keys paint a line"
    return (
        f'<div class="canvas"><div class="paper"><canvas width="{width}" height="{height}" '
        f'tabindex="0" role="application" aria-label="{name}: {keys}"></canvas>'
        f'<div class="cursor" style="width:{100 / width}%;height:{100 / height}%"></div></div>'
        f'<div class="tools">{buttons}{chooser if channels == 3 else ""}'
        f'<button type="button" data-do="invert">Invert</button>'
        f'<button type="button" data-do="clear">Clear</button>'
        f'<button type="button" data-do="reset">Reset</button>'
        f'<label>Brush <input type="range" min="1" max="{max(4, width // 3)}" value="{size}">'
        f'</label></div></div><p class="note">Draw with the mouse or a finger, or with keys: '
        f"{keys}.</p>"
    )
