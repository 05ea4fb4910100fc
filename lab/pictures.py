"""Pictures of figures as files: PNG in 256 colours, GIF whose frames share one palette; lines keep their colours."""

import contextlib
import io

from lab.figures import COLOURS, STYLE, plt, style
from npopt import checkpoint
from npopt.errors import UserError

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image, ImageColor


def save(figure, path, shaded=False, sketch=False):
    """Write a Figure (PNG, 256 colours: a third of the bytes) or an animation (GIF), whole or not at all. shaded: it
    has no areas of one colour, and a pixel near the colour of a line may be part of something else. sketch: with fewer
    pixels, in half the time."""
    with style():
        if hasattr(figure, "savefig"):
            picture = drawn(figure, SKETCH if sketch else STYLE["savefig.dpi"])
            plt.close(figure)
            picture = paletted(picture, palette(picture, 256), near=0 if shaded else 16)
            checkpoint.replace(path, lambda file: picture.save(file, format="png", optimize=not sketch))
        else:
            first, *rest = animate(figure)
            times = [*[FRAME] * len(rest), HOLD]
            moving = {"save_all": True, "append_images": rest, "duration": times, "loop": 0, "optimize": True}
            checkpoint.replace(path, lambda file: first.save(file, format="gif", **moving))


FRAME, HOLD = 80, 2000  # ms; the last frame of an animation stays
SKETCH = 80  # pixels to an inch
LINES = [ImageColor.getrgb(colour) for colour in ("white", *COLOURS)]


def palette(picture, count):
    """An image that holds `count` colours for a picture. First come the colours of the lines. These have few pixels and
    would be lost among the many greys of a map. Then come the picture's commonest colours, because a small grey area
    would be mixed with a line's edge."""
    pixels = picture.width * picture.height
    areas = [
        colour
        for n, colour in sorted(picture.getcolors(pixels), reverse=True)
        if n > 5e-4 * pixels and colour not in LINES
    ][: count // 2 - len(LINES)]
    kept = [channel for colour in (*LINES, *areas) for channel in colour]
    others = picture.quantize(count - len(kept) // 3, dither=Image.Dither.NONE).getpalette()
    found = Image.new("P", (1, 1))
    found.putpalette((kept + others + kept[:3] * count)[: 3 * count])
    return found


def paletted(picture, colours, near=16):
    """The picture in the colours of a palette. A pixel near the colour of a line gets that one (near white are
    greys)."""
    planes, places = np.asarray(picture).astype(np.int16), np.array(picture.quantize(palette=colours, dither=0))
    planes = np.moveaxis(planes, 2, 0).copy()  # red, green, blue apart: many times faster than last
    for i, colour in enumerate(LINES[1:], 1):
        red, green, blue = (np.abs(plane - value) <= near for plane, value in zip(planes, colour, strict=True))
        places[red & green & blue] = i
    known, first = np.unique(np.reshape(colours.getpalette(), (-1, 3)) @ (1 << 16, 1 << 8, 1), return_index=True)
    red, green, blue = planes.astype(np.int32)
    wanted = (red << 16) + (green << 8) + blue  # Pillow takes a near colour for one that is there
    at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    places = np.where(known[at] == wanted, first[at], places).astype(np.uint8)
    out = Image.fromarray(places, "P")
    out.putpalette(colours.getpalette())
    return out


def drawn(figure, dpi):
    """The figure as an RGB picture; it is not closed."""
    if not isinstance(figure.canvas, FigureCanvasAgg):
        FigureCanvasAgg(figure)  # a figure that pyplot has not made has no place to be drawn
    figure.savefig(io.BytesIO(), format="rgba", dpi=dpi)  # no PNG to pack and unpack
    pixels = np.asarray(figure.canvas.renderer.buffer_rgba())  # as many as there are: 4.1 inches are 409.99... dots
    return Image.fromarray(pixels).convert("RGB")


def step(animation, data):
    """Draw the next frame of a matplotlib animation into its figure, and return that."""
    animation._draw_next_frame(data, blit=False)
    return animation._fig


def animate(animation):
    """The frames of a matplotlib animation, or of an iterable of figures, as images in the colours of the last one. So
    what does not move is the same in all frames, and a GIF stores it once."""
    figures = animation
    if hasattr(animation, "new_frame_seq"):
        animation._init_draw()
        figures = (step(animation, data) for data in animation.new_frame_seq())
    frames = []
    for figure in figures:
        frames.append(drawn(figure, dpi=80))
        if not hasattr(animation, "new_frame_seq"):
            plt.close(figure)
    with contextlib.suppress(AttributeError):
        plt.close(animation._fig)
    if not frames:
        raise UserError("an animation needs at least one frame")
    colours = palette(frames[-1], 64)
    return [paletted(frame, colours) for frame in frames]
