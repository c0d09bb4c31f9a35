"""Streams and tracks in words: `{"language": ["jpn", "eng"], "exclude": {"title": "*comment*"}, "first": true}`.

ffmpeg's streams and mkvmerge's tracks are described alike, so that the same words mean the same for both.
"""

import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

Words = Mapping[str, Any]
"""An entry of a task's data that selects."""

WORDS = frozenset({"language", "codec", "title", "disposition", "exclude", "first", "or"})
"""The keys of an entry that select in words."""

_INHERITED = ("specifier", "track_type")
"""Keys that `or` has from its entry unless it has its own."""

_LANGUAGES = """
    aa=aar ab=abk ae=ave af=afr ak=aka am=amh an=arg ar=ara as=asm av=ava ay=aym az=aze ba=bak be=bel bg=bul bh=bih
    bi=bis bm=bam bn=ben bo=tib=bod br=bre bs=bos ca=cat ce=che ch=cha co=cos cr=cre cs=cze=ces cu=chu cv=chv
    cy=wel=cym da=dan de=ger=deu dv=div dz=dzo ee=ewe el=gre=ell en=eng eo=epo es=spa et=est eu=baq=eus fa=per=fas
    ff=ful fi=fin fj=fij fo=fao fr=fre=fra fy=fry ga=gle gd=gla gl=glg gn=grn gu=guj gv=glv ha=hau he=heb hi=hin
    ho=hmo hr=hrv ht=hat hu=hun hy=arm=hye hz=her ia=ina id=ind ie=ile ig=ibo ii=iii ik=ipk io=ido is=ice=isl
    it=ita iu=iku ja=jpn jv=jav ka=geo=kat kg=kon ki=kik kj=kua kk=kaz kl=kal km=khm kn=kan ko=kor kr=kau ks=kas
    ku=kur kv=kom kw=cor ky=kir la=lat lb=ltz lg=lug li=lim ln=lin lo=lao lt=lit lu=lub lv=lav mg=mlg mh=mah
    mi=mao=mri mk=mac=mkd ml=mal mn=mon mr=mar ms=may=msa mt=mlt my=bur=mya na=nau nb=nob nd=nde ne=nep ng=ndo
    nl=dut=nld nn=nno no=nor nr=nbl nv=nav ny=nya oc=oci oj=oji om=orm or=ori os=oss pa=pan pi=pli pl=pol ps=pus
    pt=por qu=que rm=roh rn=run ro=rum=ron ru=rus rw=kin sa=san sc=srd sd=snd se=sme sg=sag si=sin sk=slo=slk
    sl=slv sm=smo sn=sna so=som sq=alb=sqi sr=srp ss=ssw st=sot su=sun sv=swe sw=swa ta=tam te=tel tg=tgk th=tha
    ti=tir tk=tuk tl=tgl tn=tsn to=ton tr=tur ts=tso tt=tat tw=twi ty=tah ug=uig uk=ukr ur=urd uz=uzb ve=ven vi=vie
    vo=vol wa=wln wo=wol xh=xho yi=yid yo=yor za=zha zh=chi=zho zu=zul
"""
"""The codes of each language that has several: of two letters (ISO 639-1), as Ogg and MP4 may have, and of three, of
which some languages have two (ISO 639-2, bibliographic and terminological)."""

_CODES = {code: frozenset(codes) for codes in (text.split("=") for text in _LANGUAGES.split()) for code in codes}

_T = TypeVar("_T")


@dataclass(frozen=True)
class Description:
    """A stream or a track. `number` is its place in its file, `codecs` are all names of its codec."""

    number: int
    kind: str
    codecs: tuple[str, ...] = ()
    languages: frozenset[str] = frozenset()
    title: str = ""
    dispositions: frozenset[str] = frozenset()

    def __str__(self) -> str:
        title = f'"{self.title}"' if self.title else ""
        parts = [self.kind, *self.codecs[:1], *sorted(self.languages), title, *sorted(self.dispositions)]
        return f"{self.number} ({', '.join(filter(None, parts))})"


def is_in_words(entry: Words) -> bool:
    """True if an entry selects by more than a type and a number."""
    return not WORDS.isdisjoint(entry)


def is_in(language: str, languages: Iterable[str]) -> bool:
    """True if a language is among others, under any of its codes, and in any case of letters: files have `GER`, too."""
    code = language.lower()
    return any(each.lower() in {code, *_CODES.get(code, ())} for each in languages)


def choose(
    entry: Words, number: str, candidates: Callable[[Words], Sequence[_T]], describe: Callable[[_T], Description]
) -> list[_T]:
    """What an entry selects; if that is nothing, what its `or` selects.

    `number` is the key that counts among what matches. `candidates` returns what an entry selects without its words.
    """
    found = _matching(entry, [(describe(each), each) for each in candidates(entry)])
    if number in entry:
        found = found[int(entry[number]) :][:1]
    elif entry.get("first"):
        found = found[:1]
    if found or "or" not in entry:
        return found
    inherited = {key: entry[key] for key in _INHERITED if key in entry}
    return choose({**inherited, **entry["or"]}, number, candidates, describe)


def _matching(entry: Words, candidates: Sequence[tuple[Description, _T]]) -> list[_T]:
    """What matches all words. Of several languages, the first in which there is anything is taken."""
    excluded = entry.get("exclude")
    for language in _texts(entry.get("language")) or [""]:
        words = {**entry, "language": language} if language else entry
        found = [
            each for known, each in candidates if _fits(known, words) and not (excluded and _fits(known, excluded))
        ]
        if found:
            return found
    return []


def _fits(known: Description, words: Words) -> bool:
    """True if a stream matches `language`, `codec`, `title` and `disposition`, as far as they are given."""
    languages, codecs, titles = (_texts(words.get(key)) for key in ("language", "codec", "title"))
    return (
        (not languages or any(is_in(each, known.languages) for each in languages))
        and (not codecs or any(_is_like(_bare(name), _bare(each)) for name in known.codecs for each in codecs))
        and (not titles or any(_is_like(known.title.lower(), each.lower()) for each in titles))
        and known.dispositions.issuperset(_texts(words.get("disposition")))
    )


def _is_like(text: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(text, pattern.replace("[", "[[]"))  # titles have brackets: these are no wildcards


def _bare(codec: str) -> str:
    """A codec's name without what programs write differently: `AC-3` is `ac3`."""
    return re.sub(r"[^a-z0-9*?]", "", codec.lower())


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


def in_words(entry: Words) -> str:
    """What an entry asks for, for a person. Its source and whether it may be missing are left out."""
    return ", ".join(_parts(entry))


def _parts(entry: Words) -> Iterator[str]:
    for key, value in entry.items():
        if key in {"source", "optional", "options"}:
            continue
        match value:
            case Mapping():
                yield f"{key} {{{in_words(value)}}}"
            case bool():
                yield from [key] if value else []
            case str() | int() | list():
                yield f"{key} {' or '.join(map(str, value if isinstance(value, list) else [value]))}"


def list_known(known: Iterable[Description]) -> str:
    """All that there is, for the message that nothing matches."""
    return ", ".join(map(str, known)) or "none"
