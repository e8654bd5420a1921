def test_1(f):
    assert f({'a': 1}) == 1


def test_2(f):
    assert f({}) == 0


def test_3(f):
    assert f({1: 2, 3: 4}) == 2


def test_4(f):
    assert f({'x': 0, 'y': 0, 'z': 0}) == 3
