"""What one unit of work takes, in seconds: the common language of the roofline and of measuring on this machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitCosts:
    """Seconds per unit, all included that comes with it (reading, preprocessing, writing)."""

    encode_image: float
    """One image read and run to the hook point."""
    count_image: float
    """The features of one encoded image found and counted (harvest)."""
    train_step: float
    """One step of the SAE trainer."""
    blank_answer: float
    """One steered answer about the blank image, from the hook point on."""
    shown_picture: float
    """One exemplar drawn with its mask or heatmap and run to the hook point."""
    shown_answer: float
    """One answer about a feature's exemplars, from the hook point on."""
    region: float
    """The region of one text found in one image, its share of what is done once per image included."""
    embed_picture: float
    """One masked picture embedded by the image-text encoder."""
    generate_image: float
    """One image generated from a text."""
    truth_feature: float
    """One feature compared with every known concept, intervals included; 0 where no truth is known."""
    embed_text: float
    """One text embedded for map and search."""
    map_feature: float
    """One feature's share of laying out the map."""
    thumbnail: float
    """One picture shrunk and stored."""
    fixed: float
    """What every stage takes before and after its work: loading models, writing tables."""
