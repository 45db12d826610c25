import pytest
from datasets import Dataset
from training.runs import pair


@pytest.fixture
def pairs():
    return Dataset.from_list([pair(number) for number in range(8)])
