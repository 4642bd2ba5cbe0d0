"""The network behind the embedded detector, in torch: a picture in, a map of face centres and sizes out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .landmark_network import Residual, conv


class FinderNetwork(nn.Module):
    """Fully convolutional, sides in multiples of 32; down to stride 32 for large faces, back up to 8 for small ones.

    Each cell says how surely a face is centred there, how large its square box is and where in the cell its centre lies
    (Zhou et al. 2019, "Objects as Points"); one map for all sizes, because the landmark network refines it.
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
        with torch.no_grad():  # faces are rare: start by saying no everywhere
            self.head.bias.copy_(torch.tensor([-4.0, 0.0, 0.0, 0.0]))  # type: ignore[union-attr]
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]) * 255, persistent=False)
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225]) * 255, persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """pictures (N, H, W, 3) 0..255 RGB -> (N, 4, H/8, W/8): log-odds, log2 of side / UNIT, x and y in cells."""
        x = ((pictures.float() - self.mean) / self.deviation).permute(0, 3, 1, 2)  # type: ignore[operator]
        eighth = self.eighth(x)
        sixteenth = self.sixteenth(eighth)
        up = self.to_sixteenth(self.last(sixteenth))
        up = self.join_sixteenth(sixteenth + F.interpolate(up, scale_factor=2.0, mode="nearest"))
        up = self.join_eighth(eighth + F.interpolate(self.to_eighth(up), scale_factor=2.0, mode="nearest"))
        return self.head(up)  # type: ignore[no-any-return]
