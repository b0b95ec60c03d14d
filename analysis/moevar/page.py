"""One self-contained HTML page: figures inline, no script, nothing from a network; from 320 px up."""

import base64
import html
import re

CSS = """
:root { color-scheme: light; --ink: #1b1b1f; --soft: #5a5a63; --rule: #dcdce2; --accent: #0072B2; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem; color: var(--ink); background: #fff;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 2.5rem 0 .5rem; padding-top: .75rem;
  border-top: 2px solid var(--ink); }
h3 { font-size: 1rem; line-height: 1.35; margin: 0 0 .5rem; }
p { margin: .5rem 0; max-width: 46rem; }
a { color: var(--accent); }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1rem; font-size: .9rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr)); gap: 2rem 2.5rem;
  align-items: start; margin: 1rem 0; }
figure { margin: 0; min-width: 0; }
figure svg, figure img { display: block; width: 100%; height: auto; max-width: 44rem; }
figcaption { font-size: .85rem; line-height: 1.45; color: var(--soft); margin-top: .5rem; max-width: 44rem; }
code { font-size: .92em; }
figcaption code { display: inline-block; max-width: 100%; }
pre { overflow-x: auto; background: #f6f6f8; padding: .75rem; font-size: .85rem; }
.table { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--rule); }
thead th { border-bottom: 1.5px solid var(--ink); white-space: nowrap; }
tbody th { font-weight: 600; white-space: nowrap; }
td.number { text-align: right; white-space: nowrap; }
caption { text-align: left; color: var(--soft); padding: .25rem 0; }
.missing { color: var(--soft); border-left: 3px solid var(--rule); padding-left: .75rem; }
.problem { border-left: 3px solid #D55E00; padding-left: .75rem; }
details { margin: 1rem 0; }
summary { cursor: pointer; }
"""


def text(value):
    """Escaped for HTML; a hyphen before a digit is a minus, where no word, number or exponent ends before it."""
    return re.sub(r"(?<![\w.)-])-(?=\d)", "−", html.escape(str(value), quote=True))


def document(title, body):
    return ("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
            "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
            f"<title>{text(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n")


def paragraph(words, kind=""):
    return f'<p class="{kind}">{text(words)}</p>' if kind else f"<p>{text(words)}</p>"


def heading(level, words, anchor=None):
    identity = f' id="{anchor}"' if anchor else ""
    return f"<h{level}{identity}>{text(words)}</h{level}>"


def table(columns, rows, caption=None, numbers=True):
    """columns: names; rows: lists of cells, the first a row's name; cells after it are set as numbers, on the right."""
    head = "".join(f"<th scope=\"col\">{text(name)}</th>" for name in columns)
    body = []
    for name, *rest in rows:
        kind = " class=\"number\"" if numbers else ""
        cells = "".join(f"<td{kind}>{text(cell)}</td>" for cell in rest)
        body.append(f"<tr><th scope=\"row\">{text(name)}</th>{cells}</tr>")
    title = f"<caption>{text(caption)}</caption>" if caption else ""
    top = f"<thead><tr>{head}</tr></thead>" if columns else ""
    return f"<div class=\"table\"><table>{title}{top}<tbody>{''.join(body)}</tbody></table></div>"


def details(summary, content):
    return f"<details><summary>{text(summary)}</summary>{content}</details>"


def preformatted(words):
    return f"<pre><code>{html.escape(words)}</code></pre>"


def figure(identity, title, caption, picture, command=None):
    """picture: SVG text, or PNG bytes. command: what made the data."""
    data = f" Data: <code>{text(command)}</code>" if command else ""
    inside = _inline_svg(identity, title, picture) if isinstance(picture, str) else _inline_png(title, picture)
    return (f'<figure id="{identity}"><h3>{text(title)}</h3>{inside}'
            f"<figcaption>{text(caption)}{data}</figcaption></figure>")


def _inline_svg(identity, title, svg):
    """Identifiers are made the figure's own, for several SVGs share one page; its size comes from the page."""
    svg = re.sub(r"\bid=\"([^\"]+)\"", rf'id="{identity}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{identity}-\1)", svg)
    svg = re.sub(r"((?:xlink:)?href)=\"#([^\"]+)\"", rf'\1="#{identity}-\2"', svg)
    for size in ("width", "height"):
        svg = re.sub(rf"^<svg([^>]*?) {size}=\"[^\"]*\"", r"<svg\1", svg)
    return svg.replace("<svg", f"<svg role=\"img\" aria-label=\"{text(title)}\"", 1)


def _inline_png(title, png):
    return f"<img alt=\"{text(title)}\" src=\"data:image/png;base64,{base64.b64encode(png).decode()}\">"
