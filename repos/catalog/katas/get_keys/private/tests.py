def test_1(f):
    assert f({'a': 1, 'b': 2}) == ['a', 'b']


def test_2(f):
    assert f({}) == []


def test_3(f):
    assert f({5: 6}) == [5]


def test_4(f):
    assert f({'x': 'y', 'z': 'w'}) == ['x', 'z']
