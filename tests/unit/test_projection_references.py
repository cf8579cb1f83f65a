"""Foreign keys and relationships that can't be followed are refused with the fix."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, configure_mappers, foreign, relationship, remote

from fourfold.errors import ConfigurationError
from fourfold.projection import Edge, LinkedFile, Node, compile_plan


def problems_of(models, **options):
    with pytest.raises(ConfigurationError) as caught:
        compile_plan(models, **options)
    return caught.value.problems


def test_foreign_key_to_a_table_without_class_is_told_when_the_plan_is_compiled():
    class Base(DeclarativeBase):
        pass

    sa.Table("cities", Base.metadata, sa.Column("id", sa.Integer, primary_key=True))

    class Person(Base):
        __tablename__ = "people"
        id = sa.Column(sa.Integer, primary_key=True)
        city_id = sa.Column(sa.Integer, sa.ForeignKey("cities.id"))
        __projections__ = (Node("Person"), Edge("IN", "city_id"))

    configure_mappers()
    assert "references table 'cities', which none of the projected classes maps" in problems_of([Person])[0]


def test_column_in_several_foreign_keys_is_ambiguous():
    class Base(DeclarativeBase):
        pass

    class Artist(Base):
        __tablename__ = "artists"
        id = sa.Column(sa.Integer, primary_key=True)
        __projections__ = (Node("Artist"),)

    class Band(Base):
        __tablename__ = "bands"
        id = sa.Column(sa.Integer, primary_key=True)
        __projections__ = (Node("Band"),)

    class Song(Base):
        __tablename__ = "songs"
        id = sa.Column(sa.Integer, primary_key=True)
        by = sa.Column(sa.Integer, sa.ForeignKey("artists.id"), sa.ForeignKey("bands.id"))
        __projections__ = (Node("Song"), Edge("BY", "by"))

    assert "is in several foreign keys (to artists, bands)" in problems_of([Artist, Band, Song])[0]


def test_foreign_key_of_another_type_than_the_key_is_refused():
    class Base(DeclarativeBase):
        pass

    class Artist(Base):
        __tablename__ = "artists"
        id = sa.Column(sa.Integer, primary_key=True)
        songs = relationship("Song", foreign_keys="Song.artist_id")
        __projections__ = (Node("Artist", depends_on="songs"),)

    class Song(Base):
        __tablename__ = "songs"
        id = sa.Column(sa.Integer, primary_key=True)
        artist_id = sa.Column(sa.Text, sa.ForeignKey("artists.id"))
        price = sa.Column(sa.Float, sa.ForeignKey("artists.id"))
        artist = relationship(Artist, foreign_keys=[artist_id], viewonly=True)
        __projections__ = (Node("Song", depends_on="artist"), Edge("BY", "artist_id"), Edge("COSTS", "price"))

    problems = problems_of([Artist, Song])
    fault = "column 'artist_id' is text, the key it names is integer; give both one type"
    assert f"Song: Edge('BY', 'artist_id'): via 'artist_id' {fault}" in problems
    assert f"Song: depends_on 'artist' {fault}" in problems
    assert any(problem.startswith("Artist: depends_on 'songs'") and fault in problem for problem in problems)
    assert any("Edge('COSTS', 'price')" in problem and "no single text" in problem for problem in problems)


def test_reference_to_a_key_without_text_is_refused():
    class Base(DeclarativeBase):
        pass

    class Price(Base):
        __tablename__ = "prices"
        id = sa.Column(sa.Float, primary_key=True)

    class Song(Base):
        __tablename__ = "songs"
        id = sa.Column(sa.Integer, primary_key=True)
        price_id = sa.Column(sa.Float, sa.ForeignKey("prices.id"))
        __projections__ = (Node("Song"), Edge("AT", "price_id", to="Price"))

    assert "references 'prices': prices.id: a key of type Float() has no single text" in problems_of([Price, Song])[0]


def test_dependency_by_something_else_than_the_key_is_refused():
    class Base(DeclarativeBase):
        pass

    class Artist(Base):
        __tablename__ = "artists"
        id = sa.Column(sa.Integer, primary_key=True)
        name = sa.Column(sa.Text)
        songs = relationship(
            "Song", primaryjoin=lambda: foreign(remote(Song.artist_name)) == Artist.name, viewonly=True
        )
        __projections__ = (Node("Artist", depends_on="songs"),)

    class Song(Base):
        __tablename__ = "songs"
        id = sa.Column(sa.Integer, primary_key=True)
        artist_name = sa.Column(sa.Text)

    text = "depends_on 'songs' is by artists.name, not by the whole primary key; only that names a row"
    assert problems_of([Artist, Song]) == [f"Artist: {text}"]


def test_dependency_on_a_class_that_is_not_given_is_told_when_the_plan_is_compiled():
    class Base(DeclarativeBase):
        pass

    class Artist(Base):
        __tablename__ = "artists"
        id = sa.Column(sa.Integer, primary_key=True)

    class Song(Base):
        __tablename__ = "songs"
        id = sa.Column(sa.Integer, primary_key=True)
        artist_id = sa.Column(sa.Integer, sa.ForeignKey("artists.id"))
        artist = relationship(Artist)
        __projections__ = (Node("Song", depends_on="artist"),)

    assert "leads to table 'artists', which is not that of one projected class alone" in problems_of([Song])[0]


def test_dependency_by_a_column_of_a_subclass_table_is_refused():
    class Base(DeclarativeBase):
        pass

    class Label(Base):
        __tablename__ = "labels"
        id = sa.Column(sa.Integer, primary_key=True)

    class Media(Base):
        __tablename__ = "media"
        id = sa.Column(sa.Integer, primary_key=True)
        kind = sa.Column(sa.Text)
        __mapper_args__ = {"polymorphic_on": "kind"}  # noqa: RUF012 - SQLAlchemy's
        __projections__ = ()

    class Song(Media):
        __tablename__ = "songs"
        id = sa.Column(sa.Integer, sa.ForeignKey("media.id"), primary_key=True)
        label_id = sa.Column(sa.Integer, sa.ForeignKey("labels.id"))
        label = relationship(Label)
        __mapper_args__ = {"polymorphic_identity": "song"}  # noqa: RUF012 - SQLAlchemy's
        __projections__ = (Node("Song", depends_on="label"),)

    assert "its foreign key must be a column of 'media'" in problems_of([Label, Media, Song])[0]


def test_file_column_needs_a_key_that_has_a_text():
    class Base(DeclarativeBase):
        pass

    class Price(Base):
        __tablename__ = "prices"
        id = sa.Column(sa.Float, primary_key=True)
        path = sa.Column(sa.Text)
        __projections__ = (LinkedFile("path"),)

    assert "no single text per value" in problems_of([Price])[0]
