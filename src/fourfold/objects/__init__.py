"""Files: bytes in an object store under UUID names, registered in the rows, removed when nothing names them any more.

The way of a file: `upload` (staged, under a lease) → `registry` (promoted in the unit's transaction, named by rows) →
`collection` (found unnamed, forgotten) → the relay's target `files` (bytes removed).
"""

from fourfold.objects.collection import CollectionReport, FilesTarget, collect
from fourfold.objects.files import Files, OpenFile, StoredFiles
from fourfold.objects.guard import guard_store
from fourfold.objects.inspection import ObjectProblem, check_object, orphans, scan_registry
from fourfold.objects.marker import bind_store, check_marker
from fourfold.objects.registry import ObjectReference, ObjectRegistry
from fourfold.objects.stage import StageRegistry
from fourfold.objects.store import ByteRange, ObjectHead, ObjectReading, ObjectStore, ObjectWriter, open_object_store
from fourfold.objects.upload import StoredObject, Uploader

__all__ = [
    "ByteRange",
    "CollectionReport",
    "Files",
    "FilesTarget",
    "ObjectHead",
    "ObjectProblem",
    "ObjectReading",
    "ObjectReference",
    "ObjectRegistry",
    "ObjectStore",
    "ObjectWriter",
    "OpenFile",
    "StageRegistry",
    "StoredFiles",
    "StoredObject",
    "Uploader",
    "bind_store",
    "check_marker",
    "check_object",
    "collect",
    "guard_store",
    "open_object_store",
    "orphans",
    "scan_registry",
]
