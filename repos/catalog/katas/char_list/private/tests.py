def test_1(f):
    assert f('abc') == ['a', 'b', 'c']


def test_2(f):
    assert f('') == []


def test_3(f):
    assert f('x') == ['x']


def test_4(f):
    assert f('a b') == ['a', ' ', 'b']
