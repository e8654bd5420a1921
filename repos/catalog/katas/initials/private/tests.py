def test_1(f):
    assert f('Ada', 'Lovelace') == 'AL'


def test_2(f):
    assert f('a', 'b') == 'ab'


def test_3(f):
    assert f('Alan', 'Turing') == 'AT'


def test_4(f):
    assert f('John', 'Doe') == 'JD'
