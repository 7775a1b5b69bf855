"""Masks: what the caller's must be, and what is to be made of it for a deployment that reads masks another way. Decides
from headers; touches no pixels."""

from __future__ import annotations

from app.catalog.profiles import Profile
from app.errors import InvalidRequest
from app.images import Size
from app.imaging.headers import ImageHeader, turned
from app.imaging.operations import MaskMeaning, RedrawMask


def check(mask: ImageHeader, first: ImageHeader | None, said: MaskMeaning) -> None:
    """Raises InvalidRequest unless the mask says something, and that of the whole first picture."""
    if said == "alpha" and not mask.alpha:
        raise without_alpha()
    if first is not None and mask.upright not in (first.upright, first.size):
        raise _wrong(
            f"The mask is {mask.upright} pixels and the image is {first.upright}. Send a mask of the size of the "
            "(first) image."
        )


def redrawing(
    mask: ImageHeader, first: ImageHeader | None, said: MaskMeaning, can: Profile, size: Size | None
) -> RedrawMask | None:
    """What must be done to the mask (which was checked); None: nothing. `size` is what the first picture becomes."""
    meant = _meant(can)
    orientations = tuple(o for o in (mask.orientation, _with_the_picture(mask, first)) if o != 1)
    if size is not None and mask.upright == size and not orientations:
        size = None
    if said == meant and not orientations and size is None and _fits(mask, said, can):
        return None
    return RedrawMask(said, meant, orientations, size)


def without_alpha() -> InvalidRequest:
    return _wrong(
        "The mask has no alpha channel, so it does not say what to repaint. Make the places to be repainted fully "
        "transparent, or, if white (or black) marks them, say so with 'mask_convention': 'white' (or 'black')."
    )


def _wrong(message: str) -> InvalidRequest:
    return InvalidRequest(message, param="mask", type="image_generation_user_error", code="invalid_mask_image_format")


def _meant(can: Profile) -> MaskMeaning:
    return "alpha" if can.mask == "none" else can.mask


def _with_the_picture(mask: ImageHeader, first: ImageHeader | None) -> int:
    """A mask that was made for the picture as it is stored, not as it is seen, is turned with it."""
    if first is None or first.size is None or mask.upright is None or mask.upright == first.upright:
        return 1
    return first.orientation if turned(mask.upright, first.orientation) == first.upright else 1


def _fits(mask: ImageHeader, said: MaskMeaning, can: Profile) -> bool:
    """Whether it can go as it is. A host that nothing is known of gets any PNG with transparency untouched."""
    if mask.format != "png":
        return False
    if said != "alpha":
        return mask.grey
    return mask.plain or can.parameters is None
