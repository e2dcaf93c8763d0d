"""Hosts in rules of access: what each is known by stands once, and in every rule that names it by then.

Workers and discovery get rules that have no hosts any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from blockyard.block.records import RecordError, join, key
from blockyard.iscsi.access import Rule
from blockyard.worker.configuration import Configuration, Discovery, Host


def check_hosts(configuration: Configuration) -> None:
    """That there are all hosts that rules name. Raises RecordError."""
    for path, rules in _all(configuration):
        for number, rule in enumerate(rules):
            for host in rule.hosts:
                if host not in configuration.hosts:
                    at = join(path, "access", f"[{number}]", "hosts")
                    raise RecordError(
                        at, f"there is no host {host!r}: add [{join('hosts', key(host))}], or correct the name"
                    )


def without_hosts(configuration: Configuration) -> Configuration:
    """The same, with what hosts are in the place of their names."""
    hosts = configuration.hosts
    targets = {
        name: replace(target, access=_rules(target.access, hosts)) for name, target in configuration.targets.items()
    }
    pools = {name: replace(pool, access=_rules(pool.access, hosts)) for name, pool in configuration.pools.items()}
    discovery = Discovery(_rules(configuration.discovery.access, hosts))
    return replace(configuration, targets=targets, pools=pools, discovery=discovery)


def users_of(host: str, configuration: Configuration) -> list[str]:
    """The targets whose rules name a host."""
    return sorted(
        name for name, target in configuration.targets.items() if any(host in rule.hosts for rule in target.access)
    )


def _rules(rules: Iterable[Rule], hosts: Mapping[str, Host]) -> tuple[Rule, ...]:
    return tuple(each for rule in rules for each in _of_hosts(rule, hosts))


def _of_hosts(rule: Rule, hosts: Mapping[str, Host]) -> Iterator[Rule]:
    if not rule.hosts:
        yield rule
    for name in rule.hosts:
        yield hosts[name].rule(rule)


def _all(configuration: Configuration) -> Iterator[tuple[str, tuple[Rule, ...]]]:
    for name, target in configuration.targets.items():
        yield join("targets", key(name)), target.access
    for name, pool in configuration.pools.items():
        yield join("pools", key(name)), pool.access
    yield "discovery", configuration.discovery.access
