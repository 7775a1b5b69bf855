"""Check a caller's mask, and decide how to redraw it for a deployment that reads masks in another way. Decides from
headers; touches no pixels."""

from __future__ import annotations

from app.catalog.profiles import Profile
from app.errors import InvalidRequest
from app.images import Size
from app.imaging.headers import ImageHeader, turn
from app.imaging.operations import MaskMeaning, RedrawMask


def check_mask(mask: ImageHeader, first: ImageHeader, convention: MaskMeaning) -> None:
    """Raise InvalidRequest unless the mask has the alpha channel that it needs, and the size of the first image."""
    if convention == "alpha" and not mask.alpha:
        raise no_alpha()
    if mask.upright not in (first.upright, first.size):
        raise _invalid_mask(
            f"The mask is {mask.upright} pixels and the image is {first.upright}. Send a mask of the size of the "
            "(first) image."
        )


def mask_order(
    mask: ImageHeader, first: ImageHeader, convention: MaskMeaning, can: Profile, size: Size | None
) -> RedrawMask | None:
    """Return how to redraw a mask that was checked; None: it can be sent as it is. `size` is the first image's new
    size."""
    wanted: MaskMeaning = "alpha" if can.mask == "none" else can.mask
    orientations = tuple(o for o in (mask.orientation, _orientation_of_image(mask, first)) if o != 1)
    if size is not None and mask.upright == size and not orientations:
        size = None
    if convention == wanted and not orientations and size is None and _is_sendable(mask, convention, can):
        return None
    return RedrawMask(convention, wanted, orientations, size)


def no_alpha() -> InvalidRequest:
    return _invalid_mask(
        "The mask has no alpha channel, so it does not say what to repaint. Make the region to be repainted fully "
        "transparent, or, if white (or black) marks them, say so with 'mask_convention': 'white' (or 'black')."
    )


def _invalid_mask(message: str) -> InvalidRequest:
    return InvalidRequest(message, param="mask", type="image_generation_user_error", code="invalid_mask_image_format")


def _orientation_of_image(mask: ImageHeader, first: ImageHeader) -> int:
    """Return the image's orientation if the mask was made for the image as it is stored, not as it is seen; else 1."""
    if first.size is None or mask.upright is None or mask.upright == first.upright:
        return 1
    return first.orientation if turn(mask.upright, first.orientation) == first.upright else 1


def _is_sendable(mask: ImageHeader, convention: MaskMeaning, can: Profile) -> bool:
    """True if the file needs no change. An unknown host gets any PNG with transparency untouched."""
    if mask.format != "png":
        return False
    if convention != "alpha":
        return mask.grey
    return mask.plain or can.parameters is None
