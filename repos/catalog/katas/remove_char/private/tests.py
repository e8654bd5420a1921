def test_1(f):
    assert f('banana', 'a') == 'bnn'


def test_2(f):
    assert f('abc', 'x') == 'abc'


def test_3(f):
    assert f('aaa', 'a') == ''


def test_4(f):
    assert f('hello', 'l') == 'heo'
