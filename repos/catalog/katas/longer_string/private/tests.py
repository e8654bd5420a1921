def test_1(f):
    assert f('abc', 'de') == 'abc'


def test_2(f):
    assert f('x', 'hello') == 'hello'


def test_3(f):
    assert f('', 'y') == 'y'


def test_4(f):
    assert f('zz', 'a') == 'zz'
