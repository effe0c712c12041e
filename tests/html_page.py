"""An HTML page as tests read it."""

from html.parser import HTMLParser

VOID = {"meta", "link", "br"}


class Page(HTMLParser):
    """The page's text, its tags with their attributes, and its cells; refuses HTML that is not well nested."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.rows, self.parts, self.style = [], [], [], [], ""
        self.feed(html)
        self.close()
        assert self.open == []
        self.text = " ".join("".join(self.parts).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and "tr" in self.open:
            self.rows[-1].append("")
        if tag in ("small", "b", "dd", "td", "th", "p", "h3", "h4", "li"):
            self.handle_data(" ")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "style":
            self.style += data
        else:
            self.parts.append(data)
            if {"td", "th"} & set(self.open):
                self.rows[-1][-1] += data

    def row(self, name):
        """The first table row whose head is `name`."""
        rows = [[" ".join(cell.split()) for cell in row] for row in self.rows]
        return next(row[1:] for row in rows if row and row[0] == name)

    def inside(self, tag):
        return len([name for name, _ in self.tags if name == tag])
