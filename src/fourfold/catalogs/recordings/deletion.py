"""Deleting a recording, with everything that followed from it."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from fourfold.catalogs.recordings.models import Recording
from fourfold.catalogs.recordings.placing import object_of
from fourfold.errors import NotFoundError
from fourfold.rows.errors import mapped_errors

if TYPE_CHECKING:
    from fourfold.fourfold import Fourfold
    from fourfold.unit_of_work import UnitOfWork

__all__ = ["delete"]


async def delete(store: Fourfold, recording_id: uuid.UUID) -> UnitOfWork:
    """Delete a recording: its metadata and tracklist with it, its graph, point and file as soon as the relay has run.

    The file is freed at once, without the time of grace, unless another row names the same object.

    Args:
        store: An open `Fourfold` over this catalog's models.
        recording_id: Which.

    Returns:
        The unit of work, to wait for: `await (await delete(store, key)).settled()`.

    Raises:
        NotFoundError: Code `recordings.not_found`.
        FourfoldError: Of the stores.
    """
    with mapped_errors():
        async with store.unit_of_work() as work:
            recording = await work.session.get(Recording, recording_id)
            if recording is None:
                message = f"there is no recording {recording_id}"
                hint = "It may be deleted already"
                raise NotFoundError(message, code="recordings.not_found", hint=hint, recording_id=str(recording_id))
            object_key = await work.session.scalar(object_of(recording_id))
            await work.session.delete(recording)
    if object_key is not None:
        # After the commit, and apart from it: dying here leaves the file to the next collection.
        await store.collect(only=[object_key], grace_seconds=0)
    return work
