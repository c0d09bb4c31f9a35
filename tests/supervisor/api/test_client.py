"""The client of the API: its address."""

from tests.support.client import Client
from tests.support.farm import Farm
from tests.support.supervised import BENIGN


def test_the_url_may_end_in_a_slash(farm: Farm, client: Client) -> None:
    """`API_URL` may end in slashes; the farm knows no route with two in a row."""
    client.start(API_URL=farm.url + "//")

    assert not farm.await_verdict(farm.post(BENIGN)).failed
