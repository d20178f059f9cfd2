"""Gradio's theme in the explorer's own tokens: system fonts only, one palette, light and dark."""

from __future__ import annotations

from gradio.themes import Base, sizes

SANS = (
    "-apple-system",
    "BlinkMacSystemFont",
    "Segoe UI",
    "Inter",
    "Roboto",
    "Noto Sans",
    "Liberation Sans",
    "sans-serif",
)
MONO = ("ui-monospace", "SF Mono", "Menlo", "Consolas", "Liberation Mono", "monospace")

COLOURS = {
    "body_background_fill": "var(--ico-paper)",
    "body_text_color": "var(--ico-ink)",
    "body_text_color_subdued": "var(--ico-faint)",
    "background_fill_primary": "var(--ico-panel)",
    "background_fill_secondary": "var(--ico-sunken)",
    "border_color_primary": "var(--ico-line)",
    "border_color_accent": "var(--ico-accent)",
    "color_accent_soft": "var(--ico-accent-wash)",
    "block_background_fill": "transparent",
    "block_border_color": "transparent",
    "block_label_background_fill": "transparent",
    "block_label_text_color": "var(--ico-soft)",
    "block_title_text_color": "var(--ico-soft)",
    "block_info_text_color": "var(--ico-faint)",
    "input_background_fill": "var(--ico-panel)",
    "input_border_color": "var(--ico-line-strong)",
    "input_border_color_focus": "var(--ico-accent)",
    "input_placeholder_color": "var(--ico-faint)",
    "slider_color": "var(--ico-accent)",
    "link_text_color": "var(--ico-accent)",
    "button_primary_background_fill": "var(--ico-accent)",
    "button_primary_background_fill_hover": "var(--ico-accent)",
    "button_primary_text_color": "var(--ico-accent-ink)",
    "button_primary_border_color": "var(--ico-accent)",
    "button_secondary_background_fill": "var(--ico-panel)",
    "button_secondary_background_fill_hover": "var(--ico-sunken)",
    "button_secondary_text_color": "var(--ico-ink)",
    "button_secondary_border_color": "var(--ico-line-strong)",
    "checkbox_background_color": "var(--ico-panel)",
    "checkbox_background_color_selected": "var(--ico-accent)",
    "checkbox_border_color": "var(--ico-line-strong)",
    "checkbox_border_color_selected": "var(--ico-accent)",
    "checkbox_label_background_fill": "var(--ico-panel)",
    "checkbox_label_background_fill_selected": "var(--ico-accent-wash)",
    "checkbox_label_border_color": "var(--ico-line)",
    "checkbox_label_border_color_selected": "var(--ico-accent)",
    "checkbox_label_text_color": "var(--ico-ink)",
    "checkbox_label_text_color_selected": "var(--ico-ink)",
    "error_background_fill": "var(--ico-panel)",
    "error_text_color": "var(--ico-danger)",
    "error_border_color": "var(--ico-danger)",
}
"""Colours of Gradio's parts, the same in light and dark: the tokens themselves change with the theme."""


def build_theme() -> Base:
    """Base theme whose colours are the CSS variables of static/tokens.css, so that they change with the theme."""
    theme = Base(font=list(SANS), font_mono=list(MONO), radius_size=sizes.radius_sm, spacing_size="md")
    dark = {f"{name}_dark": value for name, value in COLOURS.items()}
    return theme.set(
        **COLOURS,
        **dark,
        block_shadow="none",
        button_primary_shadow="none",
        input_shadow="none",
        input_shadow_focus="none",
        input_border_width="1px",
        button_border_width="1px",
        button_large_padding="8px 16px",
        button_large_text_size="0.8125rem",
        button_large_text_weight="600",
        button_small_padding="5px 12px",
        button_small_text_weight="600",
        button_small_text_size="0.8125rem",
        input_text_size="0.9375rem",
        checkbox_label_padding="6px 12px",
        checkbox_label_border_width="1px",
        checkbox_label_text_size="0.875rem",
        block_border_width="0px",
        block_padding="0px",
        block_label_padding="0px",
        block_title_text_weight="500",
        block_title_text_size="0.8125rem",
        layout_gap="16px",
    )
