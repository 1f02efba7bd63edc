"""Ports as numbers, and addresses that only tell workers apart."""

from ipaddress import ip_address
from urllib.parse import urlsplit

from gridproof.proxy.pool.numbers import Numbers, contact


def test_numbers_are_given_once_and_the_least_recently_used_first():
    numbers = Numbers([1, 2, 3], rest=10)
    assert [numbers.take(0) for _ in range(4)] == [1, 2, 3, 0]
    numbers.give_back(2, 5)
    numbers.give_back(1, 6)
    assert [numbers.take(15), numbers.take(15)] == [2, 0]
    assert numbers.take(16) == 1
    numbers.give_back(0, 16)
    assert numbers.take(1e9) == 0


def test_contacts_differ_and_are_addresses_of_the_loopback():
    contacts = [
        contact(20001, 1),
        contact(20002, 2),
        *(contact(0, serial) for serial in range(0, 70_000, 97)),
    ]
    assert len(set(contacts)) == len(contacts)
    for address in contacts:
        assert ip_address(urlsplit(address).hostname).is_loopback
    assert ip_address(urlsplit(contact(0, 10**12)).hostname).is_loopback
