def test_1(f):
    assert f('ab', 'cd') == 'abcd'


def test_2(f):
    assert f('', 'x') == 'x'


def test_3(f):
    assert f('x', '') == 'x'


def test_4(f):
    assert f('foo', 'bar') == 'foobar'
