"""The rules book has words for every rule, chain and set there is, and shows the table as it is."""

from __future__ import annotations

from tests.scenarios.network.rules_book import PATH, chain_pages, set_page

from dari.net.firewall import HOST_TABLE_TEXT


def test_every_rule_is_explained():
    page = PATH.read_text()
    assert f"```\n{HOST_TABLE_TEXT.rstrip()}\n```" in page
    assert set_page(HOST_TABLE_TEXT) in page
    for each in chain_pages(HOST_TABLE_TEXT):
        assert each in page
