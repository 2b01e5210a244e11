"""Word lists of the synthetic world. Every person, town, school and company made from them is invented."""

# ruff: noqa: SIM905  # a list of words reads best as words

from __future__ import annotations

from typing import Final

FIRST_NAMES: Final = tuple(
    """Ada Agnes Albert Alma Amos Anders Anita Arthur Astrid August Beatrix Benedict Bertha Bruno Camille
    Casper Cecil Celia Clara Clement Cora Cyrus Dagmar Damian Daphne Dora Edgar Edith Edmund Elena
    Elias Elsa Emeric Enid Ernest Esther Felix Fergus Flora Frances Gavin Gerda Gideon Greta Gustav
    Hanna Harold Hazel Hector Helga Hugo Ida Ines Ingrid Irma Isaac Ivan Ivy Jasper Joan Jonas
    Judith Julius Karin Kaspar Laura Lena Leopold Lila Linus Lorenz Lucia Magda Magnus Marcel Martha
    Matilda Maxim Mira Moritz Nadia Nelson Nora Oscar Otto Paula Petra Quentin Ramona Regina Roland
    Rosa Rufus Silvia Stella Tobias Ulrich Vera Victor Wanda""".split()
)
MIDDLE_NAMES: Final = tuple(
    """Abel Alina Ansel Basil Blanche Boris Carla Claude Conrad Corinne Denis Diana Dorian Eleanor Emil
    Erwin Eva Fabian Frida Georgia Gilbert Gloria Henrik Hilda Horace Irene Jerome Josef Julia Klara
    Lambert Leon Lionel Louisa Lydia Malcolm Marina Melvin Minna Naomi Nestor Olga Olive Oswald
    Pascal Pearl Percy Philippa Ralph Renata Robin Roman Sabine Simon Sonja Theodor Thora Viola
    Walter Yvonne""".split()
)
LAST_NAME_STEMS: Final = tuple(
    "Ash Bram Cal Dun Elm Fair Gray Hart Kirk Lang Mar Nor Oak Pen Red Stan Thorn Up Wal Wes".split()
)
LAST_NAME_ENDINGS: Final = tuple("bury cott dale den field ford ham ley more worth".split())

TOWN_STEMS: Final = tuple(
    "Amber Birch Cedar Copper Falcon Granite Heron Juniper Maple Otter Silver Willow".split()
)
TOWN_ENDINGS: Final = tuple("Bay Bridge Creek Falls Gate Grove Harbor Hollow Ridge Springs".split())

UNIVERSITY_STEMS: Final = tuple(
    "Aldera Brenova Corvane Delmar Estoria Fenwick Galdor Helvane Isaria Jorvale Kestrel Lumora".split()
)
UNIVERSITY_ENDINGS: Final = (
    "Academy",
    "Business School",
    "City College",
    "Institute",
    "Law School",
    "Polytechnic",
    "State University",
    "Technical University",
)

MAJOR_STEMS: Final = tuple("Ancient Applied Clinical Coastal Comparative Digital Modern Rural".split())
MAJOR_ENDINGS: Final = tuple("Chemistry Economics Geology History Linguistics Philosophy".split())

EMPLOYER_STEMS: Final = tuple(
    "Arcton Belvar Cindral Dravik Everon Fintara Glaston Hyperia Intrado Jantzen Korvex Lindora".split()
)
EMPLOYER_ENDINGS: Final = tuple(
    "Airways Books Foods Glass Insurance Motors Paper Robotics Shipping Textiles".split()
)

MONTHS: Final = tuple(
    "January February March April May June July August September October November December".split()
)
FIRST_YEAR: Final = 1940
LAST_YEAR: Final = 1999
