def test_1(f):
    assert f({'a': 1}) == {1: 'a'}


def test_2(f):
    assert f({}) == {}


def test_3(f):
    assert f({1: 2, 3: 4}) == {2: 1, 4: 3}


def test_4(f):
    assert f({'x': 'y'}) == {'y': 'x'}
