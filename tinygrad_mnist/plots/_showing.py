"""Where a picture is drawn: in what the caller gave, or in a Figure that shows itself."""

import io
from typing import Any, Literal, TypeVar

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from tinygrad_mnist import _checks as check

T = TypeVar("T")


class Picture(Figure):
    """A Figure that a notebook shows, though pyplot knows nothing of it.

    After `%matplotlib inline`, IPython draws every Figure by itself and asks for no `_repr_png_`:
    so a picture appears once either way.
    """

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png", bbox_inches="tight")
        return file.getvalue()

    def show(self, warn: bool = True) -> None:
        """Open the picture in the system's viewer, for a terminal."""
        Image.open(io.BytesIO(self._repr_png_())).show()


class Panel(Axes):
    """The Axes of a Picture that has one: it shows the Picture."""

    def _repr_png_(self) -> bytes:
        figure: Any = self.figure
        return figure._repr_png_()  # type: ignore[no-any-return]


def axes(owner: str, ax: Axes | None, width: float, height: float) -> Axes:
    """Return ax, or for None a new Panel of this size in inches."""
    if ax is None:
        return figure(owner, None, width, height).add_subplot(axes_class=Panel)
    return _given(owner, "ax", ax, Axes)


def figure(
    owner: str,
    figure: Figure | None,
    width: float,
    height: float,
    layout: Literal["compressed", "constrained"] = "compressed",
) -> Figure:
    """Return figure, or for None a new Picture of this size, where nothing is cut off.

    Of panels that are images, "compressed" takes away the space between them.
    """
    if figure is None:
        return Picture(figsize=(width, height), layout=layout)
    return _given(owner, "figure", figure, Figure)


def _given(owner: str, name: str, value: T, kind: type[T]) -> T:
    if not isinstance(value, kind):
        raise check.type_error(owner, f"{name} to be a matplotlib {kind.__name__} or None", value)
    return value


def integer_ticks(*axis: Any) -> None:
    """Put the ticks of each axis at integers, all of them up to 10."""
    for one in axis:
        one.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))


def frame(ax: Axes) -> None:
    """Leave a thin grey frame around an image, and no ticks."""
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set(color="0.6", linewidth=0.6)
