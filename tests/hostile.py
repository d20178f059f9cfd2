"""Strings that try to run, to break a template, to break a layout, or to hide.

Each is shown by the explorer as the text that it is, wherever it comes from: an explanation, a label, a file name, a
prompt, a query, an address. A string that runs sets ``window.__ran``.
"""

from __future__ import annotations

TEMPLATES: tuple[str, ...] = (
    "${window.__ran=1}",
    "a ${alert(1)} b",
    "${",
    "`",
    "`+window.__ran+`",
    "\\`${window.__ran=1}",
    "{{value}}",
    "{{{value}}}",
    "{{#each value}}{{this}}{{/each}}",
    "{{constructor.constructor('window.__ran=1')()}}",
    "@children",
)
MARKUP: tuple[str, ...] = (
    "<script>window.__ran=1</script>",
    "</script><script>window.__ran=1</script>",
    "<img src=x onerror=window.__ran=1>",
    "<svg onload=window.__ran=1>",
    "<svg><script>window.__ran=1</script></svg>",
    '"><img src=x onerror=window.__ran=1>',
    "' onmouseover='window.__ran=1",
    '" autofocus onfocus="window.__ran=1',
    "<iframe srcdoc='<script>parent.__ran=1</script>'>",
    "<style>body{display:none}</style>",
    "<base href='https://elsewhere.example/'>",
    "<meta http-equiv=refresh content='0;url=https://elsewhere.example'>",
    "<form action=https://elsewhere.example><button>x",
    "<!-- ",
    "--> x",
    "<![CDATA[ x ]]>",
    "&lt;b&gt; &amp; &#x3c;",
    "</div></div></main>",
    "<plaintext>",
    "<template><p>",
)
SCHEMES: tuple[str, ...] = (
    "<a href='javascript:window.__ran=1'>x</a>",
    "javascript:window.__ran=1",
    "java\tscript:window.__ran=1",
    "data:text/html,<script>window.__ran=1</script>",
    "//elsewhere.example/x.js",
    "x;background:url(https://elsewhere.example/x)",
    "expression(window.__ran=1)",
    "</style><script>window.__ran=1</script>",
    "[x](javascript:window.__ran=1) **bold** ![](https://elsewhere.example/x.png)",
    "../../../../etc/passwd",
    "..\\..\\con",
)
LANGUAGES: tuple[str, ...] = (
    "'; DROP TABLE features; --",
    "' OR '1'='1",
    "%s %d %n %(name)s",
    "{0} {0.__class__} {self}",
    "$(touch ran) `touch ran` ; touch ran",
    '=HYPERLINK("https://elsewhere.example")',
    "__proto__",
    "constructor",
    "null",
    "NaN",
    "\\ud800 \\u0000 \\x00",
)
WRITING: tuple[str, ...] = (
    "\u202egnihtyna\u202c",
    "\u2066isolate\u2069 \u200f\u200e marks",
    "\u0627\u0644\u0639\u0631\u0628\u064a\u0629 right to left",
    "zero\u200bwidth\u200cjoin\u2060ers\ufeff",
    "a\u0300\u0301\u0302" * 20,
    "\U0001f9ff \U0001f469\u200d\U0001f680 \U0001f3f3\ufe0f\u200d\U0001f308",
    "\ufffe \uffff \U0010ffff \ufffd",
    "line\u2028separator\u2029paragraph",
    "null \x00 byte",
    "control \x01\x07\x08 \x1b[31mred\x1b[0m \x7f \x85\x9b31m",
    "tab\tnew\nline\r\nend",
    " \u00a0\u3000 spaces around ",
)
SIZES: tuple[str, ...] = (
    "w" * 10_000,
    "long " * 2000,
    "<b>" * 3000,
    "\U0001f9ff" * 2500,
)
HOSTILE: tuple[str, ...] = (*TEMPLATES, *MARKUP, *SCHEMES, *LANGUAGES, *WRITING, *SIZES)
