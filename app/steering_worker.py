"""Live steering: one subject model, loaded once, used by one visitor at a time, and stopped at once when told to.

torch and the subject are imported and loaded on the first use (or by :meth:`SteeringWorker.warm` in the background),
so that browsing an atlas needs neither.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from queue import SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING

from PIL import Image

from backend.atlas import FeatureAtlas
from backend.errors import IconoscopeError, SubjectError
from backend.types import HookPoint, Intervention, Operation, PatchScope

if TYPE_CHECKING:
    from backend.steering import SteeringSession

MAX_NEW_TOKENS = 48
MAX_PROMPT_CHARACTERS = 600
CONTROL_SEED = 0
"""Seed of the random direction in the control column."""
COLUMNS = ("unsteered", "steered", "random")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SteerRequest:
    """What a visitor asks for; checked before the model sees it."""

    feature: int
    strength: float
    """Residual-stream L2 units; ignored by ABLATE."""
    operation: Operation = Operation.ADD
    scope: PatchScope = PatchScope.ALL
    image_id: str | None = None
    """An image of the atlas; None is the blank image."""
    prompt: str

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise SubjectError("The prompt is empty. Choose one of the prompts, or write a question about the image.")
        if len(self.prompt) > MAX_PROMPT_CHARACTERS:
            raise SubjectError(f"The prompt has {len(self.prompt)} characters; at most {MAX_PROMPT_CHARACTERS} fit.")
        if self.operation is Operation.ADD and self.strength == 0:
            raise SubjectError("A strength of 0 changes nothing. Choose a strength, or press Recommended.")

    @property
    def intervention(self) -> Intervention:
        return Intervention(feature=self.feature, strength=self.strength, operation=self.operation, scope=self.scope)


@dataclass(frozen=True, slots=True, kw_only=True)
class SteerFrame:
    """The three answers so far, in the order of COLUMNS."""

    texts: tuple[str, str, str]
    n_patches_edited: tuple[int, int, int]
    seconds: float
    """Since the request was taken up."""
    done: bool = False
    stopped: bool = False


class SteeringWorker:
    """Owns the subject model. One lock: a second request waits until the first has ended or was stopped."""

    def __init__(self, atlas: FeatureAtlas) -> None:
        self._atlas = atlas
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(thread_name_prefix="steering")
        self._session: SteeringSession | None = None
        self._stops: dict[str, threading.Event] = {}
        self._stops_lock = threading.Lock()
        self._n_taken = 0
        self.failure: str | None = None
        """Why the subject could not be loaded, in words; None while it can or has not been tried."""

    @property
    def ready(self) -> bool:
        """Whether the subject model is in memory."""
        return self._session is not None

    @property
    def n_taken(self) -> int:
        """Requests that are being answered or wait for their turn."""
        return self._n_taken

    def warm(self) -> threading.Thread:
        """Load the subject in the background and run one short steered answer, so that the first real one is quick."""
        thread = threading.Thread(target=self._warm, name="steering-warm-up", daemon=True)
        thread.start()
        return thread

    def _warm(self) -> None:
        try:
            with self._lock:
                session = self._load()
                first = int(self._atlas.store.feature_ids[0])
                rows = [[], [Intervention(feature=first, strength=1.0)], [Intervention(feature=first, strength=1.0)]]
                prompt = next(iter(self._atlas.store.meta["prompts"].values()))
                for _ in session.stream(rows, prompt, max_new_tokens=2, random_seed=[None, None, CONTROL_SEED]):
                    pass
        except (IconoscopeError, ImportError, OSError) as error:
            # Browsing goes on; the Steer tab says why it cannot.
            self.failure = str(error)
            log.warning("live steering is not available: %s", error)

    def _load(self) -> SteeringSession:
        """The session; loads subject and SAE on first use. Call with the lock held. Raises SubjectError and kin."""
        if self._session is None:
            from backend.models import load_subject
            from backend.sae import TopKSAE
            from backend.settings import load_settings, resolve_path
            from backend.steering import SteeringSession

            meta = self._atlas.store.meta
            subject, hook = meta["subject"], meta["hook_point"]
            settings = load_settings()
            local = resolve_path(subject["path"], settings) if subject.get("path") else None
            place = local if local is not None and local.exists() else subject.get("repository") or local
            if place is None:
                raise SubjectError("This atlas names no subject model, so it can be browsed but not steered.")
            point = HookPoint(layer=int(hook["layer"]), tower=hook["tower"], stream=hook["stream"])
            model = load_subject(place, point, device=_device(settings.device))
            self._session = SteeringSession(model, TopKSAE.load(self._atlas.sae_dir))
            self.failure = None
        return self._session

    def stop(self, visitor: str) -> bool:
        """Ask the visitor's running request to end after the token it is at. True if there was one."""
        with self._stops_lock:
            event = self._stops.get(visitor)
        if event is None:
            return False
        event.set()
        return True

    def run(self, visitor: str, request: SteerRequest) -> Generator[SteerFrame]:
        """Unsteered, steered and random-direction answers in one batch, after each token.

        The model runs in a thread of its own, so that the lock is given back even if nobody reads to the end.
        Raises SubjectMissing, InterventionNotApplied and the like.
        """
        stop = threading.Event()
        with self._stops_lock:
            previous = self._stops.get(visitor)
            self._stops[visitor] = stop
            self._n_taken += 1
        if previous is not None:
            previous.set()
        frames: SimpleQueue[SteerFrame | None] = SimpleQueue()
        outcome = self._threads.submit(self._produce, request, stop, frames)
        try:
            while (frame := frames.get()) is not None:
                yield frame
            outcome.result()
        finally:
            stop.set()
            with self._stops_lock:
                if self._stops.get(visitor) is stop:
                    del self._stops[visitor]

    def _produce(self, request: SteerRequest, stop: threading.Event, frames: SimpleQueue[SteerFrame | None]) -> None:
        """Put frames and at last None, which comes after an error too; the error itself waits in the future."""
        try:
            # The lock is the queue: whoever holds it has the model.
            with self._lock:
                started = monotonic()
                frame = SteerFrame(texts=("", "", ""), n_patches_edited=(0, 0, 0), seconds=0.0)
                if not stop.is_set():
                    for frame in self._frames(request, stop, started):
                        frames.put(frame)
                frames.put(replace(frame, seconds=monotonic() - started, done=True, stopped=stop.is_set()))
        finally:
            with self._stops_lock:
                self._n_taken -= 1
            frames.put(None)

    def _frames(self, request: SteerRequest, stop: threading.Event, started: float) -> Iterator[SteerFrame]:
        session = self._load()
        self._atlas.store.feature(request.feature)
        steps = session.stream(
            [[], [request.intervention], [request.intervention]],
            request.prompt,
            self._image(request.image_id),
            max_new_tokens=MAX_NEW_TOKENS,
            random_seed=[None, None, CONTROL_SEED],
            should_stop=stop.is_set,
        )
        for unsteered, steered, random in steps:
            yield SteerFrame(
                texts=(unsteered.text, steered.text, random.text),
                n_patches_edited=(unsteered.n_patches_edited, steered.n_patches_edited, random.n_patches_edited),
                seconds=monotonic() - started,
            )

    def _image(self, image_id: str | None) -> Image.Image | None:
        if image_id is None:
            return None
        from backend.images import open_image

        try:
            data = self._atlas.store.image_bytes(image_id)
        except KeyError as error:
            raise SubjectError(f"This atlas holds no image {image_id!r}. Choose one of the pictures shown.") from error
        return open_image(data, name=f"image {image_id}")


def _device(wish: str) -> str:
    """A torch device name for the setting's wish; ``auto`` takes the first GPU if there is one."""
    if wish != "auto":
        return wish
    import torch

    return "cuda:0" if torch.cuda.is_available() else "cpu"
