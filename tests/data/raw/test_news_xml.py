"""Articles of Reuters and the New York Times: their paragraphs and ids, whatever their encoding says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hblm.data.raw.news_xml import Article, Paragraphs, parse_newsml, parse_nitf

NEWSML = """\
<?xml version="1.0" encoding="{encoding}"?>
<newsitem itemid="99901" id="root" date="1996-09-01" xml:lang="en">
<title> Invented &amp; made up </title>
<headline>Never read</headline>
<text>
<p>First paragraph.</p>
{body}
</text>
<metadata><codes class="bip:topics:1.0"><code code="C15"/></codes></metadata>
</newsitem>
"""
NITF = """\
<?xml version="1.0" encoding="{encoding}"?>
<!DOCTYPE nitf SYSTEM "http://www.nitf.example/nitf-3-3.dtd">
<nitf change.date="June 10, 2005" version="-//IPTC//DTD NITF 3.3//EN">
<head>
<title>Invented</title>
<meta content="World" name="online_sections"/>
<docdata>
<doc-id id-string="0099901"/>
<doc.copyright holder="Nobody" year="1999"/>
<identified-content>
<classifier class="online_producer" type="taxonomic_classifier">Top/News/World/Africa</classifier>
<classifier class="indexing_service" type="descriptor">INVENTED</classifier>
<classifier class="online_producer" type="general_descriptor">Inventions</classifier>
<classifier class="online_producer" type="types_of_material">News</classifier>
<classifier class="online_producer" type="taxonomic_classifier">
 Top/Features/Travel, &amp; Tours
</classifier>
<classifier class="online_producer" type="taxonomic_classifier"/>
<classifier>Top/News/None</classifier>
</identified-content>
</docdata>
<pubdata date.publication="19990101T000000" name="Example"/>
</head>
<body>
<body.head><hedline><hl1>Never read</hl1></hedline>{abstract}</body.head>
<body.content>
<block class="lead_paragraph">
<p>Lead.</p>
</block>
<block class="full_text">
<p>Lead.</p>
{body}
</block>
<block class="correction_text"><p>Corrected.</p></block>
</body.content>
</body>
</nitf>
"""
ABSTRACT = "<abstract><p>Abstract.</p></abstract>"


def newsml(body: str = "", encoding: str = "iso-8859-1", stored: str | None = None) -> bytes:
    return NEWSML.format(body=body, encoding=encoding).encode(stored or encoding)


def nitf(
    body: str = "", abstract: str = ABSTRACT, encoding: str = "UTF-8", stored: str | None = None
) -> bytes:
    return NITF.format(body=body, abstract=abstract, encoding=encoding).encode(stored or encoding)


def story(data: bytes, text: str = "body", paragraphs: Paragraphs = "space") -> Article:
    return parse_newsml(data, text=text, paragraphs=paragraphs)


def article(data: bytes, text: str = "published", paragraphs: Paragraphs = "space") -> Article:
    return parse_nitf(data, text=text, paragraphs=paragraphs)


# --- NewsML


def test_a_story_is_its_id_and_its_paragraphs() -> None:
    assert story(newsml("<p>Second one.</p>\n<p>Third.</p>")) == Article(
        identity="99901", text="First paragraph. Second one. Third.", is_blank=False, paths=(), latin_1=False
    )


@pytest.mark.parametrize(
    ("text", "paragraphs", "expected"),
    [
        ("body", "space", "First paragraph. Second. Third."),
        ("body", "glued", "First paragraph. Second. Third."),
        ("title_body", "space", "Invented & made up\nFirst paragraph. Second. Third."),
        ("title_body", "glued", "Invented & made up\nFirst paragraph. Second. Third."),
    ],
)
def test_paragraphs_are_glued_with_the_blanks_that_they_have(
    text: str, paragraphs: Paragraphs, expected: str
) -> None:
    assert story(newsml("<p> Second. </p><p>Third.</p>"), text, paragraphs).text == expected


def test_glued_paragraphs_have_nothing_between_them() -> None:
    data = newsml("<p>Second.</p>\n<p/>\n<p>Third.</p>")
    assert story(data, paragraphs="glued").text == "First paragraph.Second.Third."
    assert story(data, paragraphs="space").text == "First paragraph. Second. Third."


BODIES = {
    "markup": ("<p>a <b>b</b><i>c <u>d</u></i> e</p>", "a bc d e"),
    "markup alone": ("<p><b>b</b></p>", "b"),
    "text after markup": ("<p><b/>after</p>", "after"),
    "comments": ("<p>a<!-- no -->b<?no no?>c</p><!-- <p>no</p> -->", "abc"),
    "character data": ("<p><![CDATA[<p>a</p> & b]]></p>", "<p>a</p> & b"),
    "entities": ("<p>&lt;a&gt; &amp; &quot;b&quot; &apos;c&apos; &#233;&#xe9;</p>", "<a> & \"b\" 'c' éé"),
    "escaped twice": ("<p>AT&amp;amp;T</p>", "AT&amp;T"),
    "text outside": ("outside<p>inside</p>outside", "inside"),
    "deeper": ("<div><p>one</p><div><p>two</p></div></div>", "one two"),
    "blanks": ("<p>  </p><p>\n\t</p><p>a\n b</p><p/>", "a\n b"),
    "signs of Latin-1": ("<p>£ ½ é ÿ</p>", "£ ½ é ÿ"),
}


@pytest.mark.parametrize("kind", BODIES)
def test_a_paragraph_is_all_text_in_it(kind: str) -> None:
    body, expected = BODIES[kind]
    assert story(newsml(body)).text == f"First paragraph. {expected}"
    assert article(nitf(body)).text == f"Lead. Lead. {expected} Corrected."


def test_a_paragraph_in_a_paragraph_is_read_once() -> None:
    found = story(newsml("<p>one <p>two</p> three</p>")).text
    assert sorted(found.split()) == ["First", "one", "paragraph.", "three", "two"]


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.replace(b"<text>", b"<texts>").replace(b"</text>", b"</texts>"),
        lambda data: data[: data.index(b"<text>")] + b"</newsitem>",
        lambda data: data.replace(b"<text>", b"<a><text>").replace(b"</text>", b"</text></a>"),
    ],
    ids=["another name", "none", "deeper"],
)
def test_a_story_without_its_text_is_empty(change: Callable[[bytes], bytes]) -> None:
    data = change(newsml())
    assert story(data).text == ""
    assert story(data, "title_body").text == "Invented & made up"


def test_a_story_without_title_or_id_has_none() -> None:
    data = newsml().replace(b"title", b"titel").replace(b"itemid", b"id2")
    assert story(data, "title_body") == Article("", "First paragraph.", False, (), False)


# --- NITF


def test_an_article_is_its_id_its_paragraphs_but_one_and_its_paths() -> None:
    assert article(nitf("<p>More.</p>")) == Article(
        identity="0099901",
        text="Lead. Lead. More. Corrected.",
        is_blank=False,
        paths=("Top/News/World/Africa", "Top/Features/Travel, & Tours", ""),
        latin_1=False,
    )


@pytest.mark.parametrize(
    ("text", "abstract", "paragraphs", "expected"),
    [
        ("published", ABSTRACT, "space", "Lead. Lead. More. Corrected."),
        ("published", "", "space", "Lead. More. Corrected."),
        ("published", ABSTRACT, "glued", "Lead.Lead.More.Corrected."),
        ("full_text", ABSTRACT, "space", "Lead. More."),
        ("full_text", "", "glued", "Lead.More."),
    ],
)
def test_the_text_of_an_article_is_as_asked_for(
    text: str, abstract: str, paragraphs: Paragraphs, expected: str
) -> None:
    assert article(nitf("<p>More.</p>", abstract), text, paragraphs).text == expected


def test_an_empty_paragraph_drops_neither_others_nor_the_article() -> None:
    assert article(nitf("<p/><p>More.</p><p></p>")).text == "Lead. Lead. More. Corrected."
    empty_first = article(nitf("<p>More.</p>", "<abstract><p/></abstract>"))
    assert empty_first.text == "Lead. Lead. More. Corrected."


@pytest.mark.parametrize("text", ["published", "full_text"])
def test_an_article_of_one_paragraph_or_none_is_empty(text: str) -> None:
    bare = b"<nitf><head/><body><body.content>%s</body.content></body></nitf>"
    for body in (b"", b"<p>One.</p>"):
        assert article(bare % body, text) == Article("", "", True, (), False)


def test_the_id_is_that_of_the_head() -> None:
    data = nitf().replace(b"<body>", b'<body><doc-id id-string="1"/>').replace(b"0099901", b"7")
    assert article(data).identity == "7"
    assert article(data.replace(b"docdata", b"docdatum")).identity == ""
    assert article(data.replace(b'id-string="7"', b"")).identity == ""


# --- encodings

ACCENTS = "<p>Café “£”</p>"
LATIN = "<p>Café £ ÿ</p>"


@pytest.mark.parametrize("parse", [newsml, nitf])
@pytest.mark.parametrize(
    ("declared", "stored", "latin_1"),
    [
        ("iso-8859-1", "iso-8859-1", False),
        ("ISO-8859-1", "iso-8859-1", False),
        ("windows-1252", "cp1252", False),
        ("UTF-8", "utf-8", False),
        ("UTF-16", "utf-16", False),
        ("UTF-8", "iso-8859-1", True),
        ("us-ascii", "iso-8859-1", True),
        ("UTF-8", "utf-8-sig", False),
        ("no-such-code", "utf-8", False),
        ("no-such-code", "iso-8859-1", True),
        ("shift_jis", "utf-8", False),
        ("us-ascii", "utf-8", False),
        ("utf-16", "utf-8", False),
    ],
)
def test_bytes_that_are_not_as_declared_are_utf_8_or_else_latin_1(
    declared: str, stored: str, latin_1: bool, parse: Callable[..., bytes]
) -> None:
    data = parse(LATIN, encoding=declared, stored=stored)
    found = story(data) if parse is newsml else article(data)
    assert "Café £ ÿ" in found.text
    assert found.latin_1 is latin_1


@pytest.mark.parametrize("declaration", [b'<?xml version="1.0"?>', b""])
@pytest.mark.parametrize(("stored", "latin_1"), [("utf-8", False), ("iso-8859-1", True)])
def test_bytes_that_declare_nothing_are_utf_8_or_else_latin_1(
    stored: str, latin_1: bool, declaration: bytes
) -> None:
    _, line_end, rest = newsml(LATIN, stored=stored).partition(b"\n")
    found = story(declaration + line_end * bool(declaration) + rest)
    assert found == Article("99901", "First paragraph. Café £ ÿ", False, (), latin_1)


def test_typographic_signs_survive() -> None:
    assert story(newsml(ACCENTS, "utf-8")).text.endswith("Café “£”")
    assert story(newsml(ACCENTS, "windows-1252")).text.endswith("Café “£”")


# --- faults

FAULTS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "not well-formed XML: no element found: line 1"),
    "blanks": (b" \n", "not well-formed XML: no element found"),
    "zeros": (bytes(100), "not well-formed XML: "),
    "text": (b"Log in first", "not well-formed XML: syntax error: line 1"),
    "cut short": (newsml()[:-20], "not well-formed XML: .*line 9"),
    "a raw &": (newsml("<p>a & b</p>"), "not well-formed XML: .*line 7"),
    "a raw & in another encoding": (newsml("<p>é a & b</p>"), "not well-formed XML: .*line 7"),
    "a raw & after a byte in another encoding": (
        newsml("<p>é</p>\n<p>a & b</p>", "utf-8", "iso-8859-1"),
        "not well-formed XML: .*line 8",
    ),
    "a raw <": (newsml("<p>a < b</p>"), "not well-formed XML: .*line 7"),
    "tags that cross": (newsml("<p>a <b>b</p></b>"), "not well-formed XML: mismatched tag: line 7"),
    "two roots": (newsml() * 2, "not well-formed XML: "),
    "more after the root": (newsml() + b"more", "not well-formed XML: junk"),
    "a sign that XML has not": (newsml("<p>\x02</p>"), "not well-formed XML: .*line 7"),
    "a number that is no sign": (newsml("<p>&#xD800;</p>"), "not well-formed XML: .*line 7"),
    "an unknown entity": (newsml("<p>&nothing;</p>"), "not well-formed XML: undefined entity.*line 7"),
    "half a surrogate pair": (
        b"\xff\xfe" + '<newsitem a="\ud800"/>'.encode("utf-16-le", "surrogatepass"),
        "not",
    ),
    "another root": (b"<html><text/></html>", "expected <newsitem> as its root, found <html>"),
    "the root deeper": (
        b"<a>" + newsml("", "utf-8").partition(b"\n")[2] + b"</a>",
        "expected <newsitem> as its root, found <a>",
    ),
    "a root of a long name": (
        b"<" + b"x" * 10_000 + b"/>",
        "expected <newsitem> as its root, found <x{60}>$",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_a_story_is_told_with_its_line(name: str) -> None:
    data, expected = FAULTS[name]
    with pytest.raises(ValueError, match=f"^{expected}"):
        story(data)


def test_kinds_are_not_taken_for_each_other() -> None:
    with pytest.raises(ValueError, match="expected <nitf> as its root, found <newsitem>"):
        article(newsml())
    with pytest.raises(ValueError, match="expected <newsitem> as its root, found <nitf>"):
        story(nitf())


def with_type(declarations: str, body: str) -> bytes:
    """Return a story with a document type definition of its own."""
    declaration, line_end, rest = newsml(body).partition(b"\n")
    return declaration + line_end + f"<!DOCTYPE newsitem {declarations}>\n".encode() + rest


@pytest.mark.slow
def test_entities_that_multiply_are_refused() -> None:
    entities = "<!ENTITY a0 'ha'>" + "".join(
        f"<!ENTITY a{at} '{f'&a{at - 1};' * 10}'>" for at in range(1, 10)
    )
    with pytest.raises(ValueError, match=r"not well-formed XML: .*amplification"):
        story(with_type(f"[{entities}]", "<p>&a9;</p>"))
    wide = f"<!ENTITY a '{'x' * 50_000}'>"
    with pytest.raises(ValueError, match=r"not well-formed XML: .*amplification"):
        story(with_type(f"[{wide}]", f"<p>{'&a;' * 30_000}</p>"))


def test_entities_of_its_own_are_resolved() -> None:
    assert story(with_type("[<!ENTITY co 'A &amp; B'>]", "<p>&co;</p>")).text == "First paragraph. A & B"


def test_nothing_outside_the_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("<!ENTITY x 'the secret'>")
    uri = (tmp_path / "secret").as_uri()
    for declarations in (
        f"[<!ENTITY x SYSTEM '{uri}'>]",
        f"SYSTEM '{uri}'",
        f"[<!ENTITY % y SYSTEM '{uri}'> %y;]",
    ):
        with pytest.raises(ValueError, match="not well-formed XML: undefined entity &x;"):
            story(with_type(declarations, "<p>&x;</p>"))
        assert story(with_type(declarations, "<p>y</p>")).text == "First paragraph. y"
    with pytest.raises(ValueError, match=r"not well-formed XML: .*external entity"):
        story(with_type(f"[<!ENTITY x SYSTEM '{uri}'>]", "<p a='&x;'>y</p>"))


def test_signs_that_a_definition_may_have_named_are_known() -> None:
    assert article(nitf("<p>Caf&eacute;&nbsp;&mdash; &pound;</p>")).text == (
        "Lead. Lead. Café\xa0— £ Corrected."
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_of_a_definition_that_is_not_fetched_are_known_in_every_encoding(encoding: str) -> None:
    data = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE newsitem SYSTEM "x.dtd">'
    data += '<newsitem itemid="1"><text><p>Caf&eacute;</p></text></newsitem>'
    assert story(data.encode(encoding)).text == "Café"
