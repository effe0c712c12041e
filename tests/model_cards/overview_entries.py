"""Entries for the tests of the overview."""

from model_cards.overview import Entry

HOSTILE = [
    "<script>document.title='hacked'</script><img src=x onerror=\"document.title='hacked'\">",
    "</script><b>bold</b><!--<script>",
    "]]></script></style></textarea></title>",
    "{{ 7 * 7 }}{% raw %} ${7*7} `x`",
    "' \" & &amp; &lt;i&gt; \\u003c \u2028 \u202eabc javascript:alert(1)",
]


def entry(record, predictions, name="someone/adapter") -> Entry:
    """A published adapter of that name, with a record of its own."""
    return Entry(name, "8" * 40, record.model_copy(deep=True), predictions, None)
