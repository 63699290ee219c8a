"""Prometheus text as a scraper reads it."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

Sample = tuple[str, frozenset[tuple[str, str]]]


class Scraped:
    """What one scrape has brought. ValueError where the text is none that Prometheus takes."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.samples: dict[Sample, float] = {}
        for family in self.families.values():
            for sample in family.samples:
                key = (sample.name, frozenset(sample.labels.items()))
                assert key not in self.samples, f"twice: {key}"
                self.samples[key] = sample.value

    @property
    def names(self) -> set[str]:
        """The names of the samples."""
        return {name for name, _ in self.samples}

    def all(self, name: str, **labels: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of every sample of that name with these labels."""
        wanted = set(labels.items())
        return [
            (dict(has), value)
            for (each, has), value in self.samples.items()
            if each == name and wanted <= has
        ]

    def total(self, name: str, **labels: str) -> float:
        """Their sum."""
        return sum(value for _, value in self.all(name, **labels))

    def one(self, name: str, **labels: str) -> float:
        """The value of the only one."""
        ((_, value),) = self.all(name, **labels)
        return value
