def test_1(f):
    assert f({'a': 1, 'b': 2}) == 2


def test_2(f):
    assert f({5: 6}) == 6


def test_3(f):
    assert f({'x': 10, 'y': -4}) == 10


def test_4(f):
    assert f({'p': -1, 'q': -2}) == -1
