"""A self-contained HTML report with tables and figures, for light and dark pages."""

import base64
import html
import io
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #ffffff; --line: #d0d0d0; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e8; --paper: #16181c; --line: #3a3f47; }
}
body { margin: 0 auto; max-width: 62rem; padding: 1rem; color: var(--ink);
  background: var(--paper); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2rem; }
figure { margin: 1rem 0; } img { width: 100%; height: auto; border-radius: 4px; }
.table { overflow-x: auto; } table { border-collapse: collapse; font-size: 0.9rem; }
th, td { border-bottom: 1px solid var(--line); padding: 0.3rem 0.7rem; text-align: right; }
th:first-child, td:first-child { text-align: left; }
figcaption, .note { font-size: 0.9rem; opacity: 0.85; }
"""


class Report:
    """Collect sections and return them as one HTML page.

    Parameters
    ----------
    title : str
        Title of the page.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.parts: list[str] = []

    def section(self, title: str, text: str = "") -> None:
        """Start a section.

        Parameters
        ----------
        title : str
            The heading.
        text : str
            A paragraph of plain text.
        """
        self.parts.append(f"<h2>{html.escape(title)}</h2>")
        if text:
            self.parts.append(f"<p>{html.escape(text)}</p>")

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Add a table.

        Parameters
        ----------
        headers : Sequence[str]
            The header of each column.
        rows : Sequence[Sequence[object]]
            The cells. None becomes an empty cell, and floats have three decimals.
        """
        head = "".join(f"<th>{html.escape(header)}</th>" for header in headers)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(_cell(cell))}</td>" for cell in row) + "</tr>"
            for row in rows
        )
        self.parts.append(
            f'<div class="table"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
        )

    def figure(self, figure: Figure, caption: str) -> None:
        """Add a figure as an embedded PNG.

        Parameters
        ----------
        figure : Figure
            The figure.
        caption : str
            The caption, which is also the alternative text.
        """
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=130)
        data = base64.b64encode(buffer.getvalue()).decode()
        text = html.escape(caption, quote=True)
        self.parts.append(
            f'<figure><img src="data:image/png;base64,{data}" alt="{text}">'
            f"<figcaption>{text}</figcaption></figure>"
        )

    def html(self) -> str:
        """Return the whole page.

        Returns
        -------
        str
            HTML.
        """
        title = html.escape(self.title)
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{title}</title><style>{STYLE}</style></head>\n<body><h1>{title}</h1>\n"
            + "\n".join(self.parts)
            + "\n</body></html>\n"
        )


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def overall_tables(report: Report, runs: Mapping[str, dict]) -> None:
    """Add Tables 1 and 2 and the summary of Figures 3 and 4 to a report.

    Parameters
    ----------
    report : Report
        The report.
    runs : Mapping[str, dict]
        The result of :func:`analyze_adapters` by the name of the run.
    """
    norms, ranks, spaces = [], [], []
    for run, found in runs.items():
        for kind in ("main", "sub", "both"):
            own = found["overall"].get(kind)
            if own is None:
                continue
            ranks.append([run, kind, *(own[key] for key in RANK_COLUMNS.values()), own["moved"]])
            if "column_norms" in own:
                values = own["column_norms"]
                norms.append([run, kind, *(values[key] for key in NORM_COLUMNS.values())])
        if "subspace" in found["overall"]:
            spaces.append([run, *found["overall"]["subspace"].values()])
    report.section(
        "Norms of A's columns (Table 1)",
        "Mean l2 norm of the pivot columns and of the other columns, over all layers. Only "
        "initialisers that select columns have pivot columns. The paper reports an average ratio "
        "of 1.22 and a largest ratio of 1.63 for the main adapter.",
    )
    report.table(["run", "adapter", *NORM_COLUMNS], norms)
    report.section(
        "Effective rank and similarity (Table 2, Figure 3)",
        "Effective rank: exponential of the entropy of the normalised singular values of B A. "
        "Efficiency: effective rank divided by r. Rank of the change: effective rank of B A minus "
        "its initial value, at most 2 r. Cosines: mean absolute similarity of A's rows "
        "and of B's columns. Moved: change of s B A relative to the norm of W0.",
    )
    report.table(["run", "adapter", *RANK_COLUMNS, "moved"], ranks)
    if spaces:
        report.section(
            "Similarity of main and sub (Figure 4)",
            "phi is 1 if one subspace contains the other and 0 if they are orthogonal.",
        )
        headers = ["run", "input space", "random", "output space", "random"]
        report.table(headers, spaces)


RANK_COLUMNS = {
    "r": "rank",
    "effective rank": "effective_rank",
    "efficiency": "efficiency",
    "rank of the change": "change_rank",
    "cosine, A": "row_cosine",
    "cosine, B": "column_cosine",
}
NORM_COLUMNS = {
    "selected": "selected",
    "rest": "rest",
    "mean ratio": "mean_ratio",
    "largest ratio": "max_ratio",
}
