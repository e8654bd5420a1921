def test_1(f):
    assert f({'a': 1}, {'b': 2}) == {'a': 1, 'b': 2}


def test_2(f):
    assert f({}, {}) == {}


def test_3(f):
    assert f({'a': 1}, {'a': 2}) == {'a': 2}


def test_4(f):
    assert f({1: 1, 2: 2}, {}) == {1: 1, 2: 2}
