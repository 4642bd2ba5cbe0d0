"""The two networks in torch: a crop -> 68 points and presence, and a picture -> maps of where faces are."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..faces.align import POINTS
from ..faces.landmarks import SIDE
from ..networks.pixels import Normalise, cell_centres


def conv(inside: int, outside: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU(inplace=True)
    )


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = conv(width, width)
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


class LandmarkNetwork(nn.Module):
    """Convolutions down to 6x6 for the whole face and back up to 24x24 for the position of each point.

    A point is the centre of mass of its map (Nibali et al. 2018): it learns much faster from few pictures than a
    fully connected regression, moves smoothly from frame to frame, and adds no parameters.
    """

    def __init__(self, widths: tuple[int, int, int, int] = (16, 24, 48, 96), detail: int = 40) -> None:
        super().__init__()
        a, b, c, d = widths
        self.fine = nn.Sequential(conv(3, a, 2), conv(a, b, 2), Residual(b))  # (24, 24)
        self.middle = nn.Sequential(conv(b, c, 2), Residual(c), Residual(c))  # (12, 12)
        self.coarse = nn.Sequential(conv(c, d, 2), Residual(d), Residual(d))  # (6, 6)
        self.down_coarse = nn.Conv2d(d, c, 1)
        self.join_middle = conv(c, c)
        self.down_middle = nn.Conv2d(c, detail, 1)
        self.down_fine = nn.Conv2d(b, detail, 1)
        self.join_fine = conv(detail, detail)
        self.maps = nn.Conv2d(detail, POINTS, 1)
        self.presence = nn.Sequential(nn.Linear(2 * d, 32), nn.ReLU(inplace=True), nn.Linear(32, 1))
        self.register_buffer("grid", cell_centres(SIDE // 4), persistent=False)
        self.normalise = Normalise()

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """crops (N, SIDE, SIDE, 3) 0..255 RGB -> points (N, 68, 2) as fractions of the crop, presence (N,) log-odds."""
        x = self.normalise(crops)
        fine = self.fine(x)
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        up = self.join_middle(middle + F.interpolate(self.down_coarse(coarse), scale_factor=2.0, mode="nearest"))
        up = self.join_fine(
            self.down_fine(fine) + F.interpolate(self.down_middle(up), scale_factor=2.0, mode="nearest")
        )
        weights = self.maps(up).flatten(2).softmax(2)  # (N, 68, cells * cells)
        points = weights @ self.grid
        pooled = torch.cat([coarse.mean((2, 3)), coarse.amax((2, 3))], 1)
        return points, self.presence(pooled)[:, 0]


class FinderNetwork(nn.Module):
    """For pictures with sides in multiples of 32; down to stride 32 for large faces, back up to 8 for small ones.

    Each cell predicts the probability that a face is centred in it, the side of its square box, and where in the cell
    its centre lies (Zhou et al. 2019, "Objects as Points"). One map serves all sizes, because the landmark network
    refines the boxes.
    """

    def __init__(self, widths: tuple[int, int, int, int, int] = (12, 24, 32, 48, 64)) -> None:
        super().__init__()
        a, b, c, d, e = widths
        self.eighth = nn.Sequential(conv(3, a, 2), conv(a, b, 2), conv(b, c, 2), Residual(c))
        self.sixteenth = nn.Sequential(conv(c, d, 2), Residual(d))
        self.last = nn.Sequential(conv(d, e, 2), Residual(e), Residual(e))
        self.to_sixteenth, self.join_sixteenth = nn.Conv2d(e, d, 1), conv(d, d)
        self.to_eighth, self.join_eighth = nn.Conv2d(d, c, 1), conv(c, c)
        self.head = nn.Conv2d(c, 4, 1)
        with torch.no_grad():  # faces are rare: start with low probabilities everywhere
            self.head.bias.copy_(torch.tensor([-4.0, 0.0, 0.0, 0.0]))  # type: ignore[union-attr]
        self.normalise = Normalise()

    def forward(self, pictures: Tensor) -> Tensor:
        """pictures (N, H, W, 3) 0..255 RGB -> (N, 4, H/8, W/8): log-odds, log2 of side / UNIT, x and y in cells."""
        x = self.normalise(pictures)
        eighth = self.eighth(x)
        sixteenth = self.sixteenth(eighth)
        up = self.to_sixteenth(self.last(sixteenth))
        up = self.join_sixteenth(sixteenth + F.interpolate(up, scale_factor=2.0, mode="nearest"))
        up = self.join_eighth(eighth + F.interpolate(self.to_eighth(up), scale_factor=2.0, mode="nearest"))
        return self.head(up)  # type: ignore[no-any-return]
