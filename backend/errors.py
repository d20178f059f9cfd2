"""Every error Iconoscope raises on purpose.

IconoscopeError
├── ArtifactError
│   ├── ArtifactMissing         no manifest at the given place
│   ├── ArtifactDamaged         checksum, schema or shard does not match the manifest
│   └── ArtifactStale           made by another recipe, model or code version
├── SubjectError
│   ├── SubjectMissing          no such model here, or gated: names the repository and its licence page
│   ├── SubjectMismatch         the SAE was trained for another tower, layer or width
│   ├── SizesUnknown            a model's description does not tell its sizes, so nothing can be planned
│   ├── SubjectBusy             too many requests wait, or too many came at once: says when to try again
│   ├── SubjectTimeout          an answer took longer than one may take
│   └── InterventionNotApplied  the edit did not reach the residual stream: text is withheld
├── SAEError
│   ├── SAEShapeMismatch        weights disagree with the config or with the subject
│   └── ActivationsNotFinite    NaN or infinity in activations
├── DataError
│   ├── ImageUnreadable         corrupt, truncated or empty
│   │   ├── ImageTooLarge       more bytes or pixels than are accepted
│   │   └── ImageFormatUnknown  not a picture, or of a format that is not accepted
│   ├── ImageMissing            no such picture here, or an upload that is gone
│   ├── DatasetMissing
│   └── MasksUnknown            nobody knows what lies where in these images
├── ExplanationError
│   └── UnparsableExplanation   a judge found no usable concept in the text
├── QueryError
│   ├── UnknownFeature          no such feature id in this atlas
│   └── EmptyQuery
├── EngineError                 shards could not be computed by other processes
│   └── EngineUnreachable       no Ray head at the given address
├── NotEnoughMemory             a batch of one row does not fit
├── AddressUnusable             the explorer cannot listen there: names a free port
├── DependencyMissing           an optional package is absent: names the extra
└── RecipeError                 a recipe file is wrong: names the field

A message says what happened, where, and the command or change that mends it.
"""

from __future__ import annotations


class IconoscopeError(Exception):
    """Root of all errors that are the user's, a file's, a model's or the network's; never our bug."""


class ArtifactError(IconoscopeError):
    """An artifact folder cannot be used."""


class ArtifactMissing(ArtifactError):
    """There is no complete artifact at the given place."""


class ArtifactDamaged(ArtifactError):
    """A file of the artifact does not match its manifest."""


class ArtifactStale(ArtifactError):
    """The artifact was made by another recipe, model or code version."""


class SubjectError(IconoscopeError):
    """The subject model cannot be used."""


class SubjectMissing(SubjectError):
    """The model's weights are not at hand."""


class SubjectMismatch(SubjectError):
    """The SAE belongs to another tower, hook point or width."""


class SizesUnknown(SubjectError):
    """The description of a model does not tell its sizes."""


class SubjectBusy(SubjectError):
    """More is asked of the model than it can answer now."""


class SubjectTimeout(SubjectError):
    """An answer was ended because it took too long."""


class InterventionNotApplied(SubjectError):
    """The edit did not reach the residual stream as planned."""


class SAEError(IconoscopeError):
    """The sparse autoencoder cannot be used."""


class SAEShapeMismatch(SAEError):
    """Weights disagree with the config or the subject model."""


class ActivationsNotFinite(SAEError):
    """Activations hold NaN or infinity."""


class DataError(IconoscopeError):
    """An image or dataset cannot be used."""


class ImageUnreadable(DataError):
    """The bytes are not a picture we accept."""


class ImageTooLarge(ImageUnreadable):
    """The picture has more bytes or pixels than are accepted."""


class ImageFormatUnknown(ImageUnreadable):
    """The bytes are not a picture, or one of a format that is not accepted."""


class ImageMissing(DataError):
    """There is no such picture here, or no longer."""


class DatasetMissing(DataError):
    """The dataset is not at the given place."""


class MasksUnknown(DataError):
    """No masks are known for these images."""


class ExplanationError(IconoscopeError):
    """An explanation cannot be used."""


class UnparsableExplanation(ExplanationError):
    """A judge found no usable concept in the text."""


class QueryError(IconoscopeError):
    """A question to an atlas cannot be answered."""


class UnknownFeature(QueryError):
    """No such feature in this atlas."""


class EmptyQuery(QueryError):
    """The query holds no words."""


class EngineError(IconoscopeError):
    """Shards could not be computed by the workers that were asked."""


class EngineUnreachable(EngineError):
    """There is no Ray head at the given address."""


class NotEnoughMemory(IconoscopeError):
    """Even a batch of one row does not fit into the device's memory."""


class DependencyMissing(IconoscopeError):
    """An optional package is not installed."""


class AddressUnusable(IconoscopeError):
    """No server can listen at the given address and port."""


class RecipeError(IconoscopeError):
    """A recipe file is wrong."""
