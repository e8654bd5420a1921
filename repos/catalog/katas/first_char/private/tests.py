def test_1(f):
    assert f('abc') == 'a'


def test_2(f):
    assert f('z') == 'z'


def test_3(f):
    assert f('Hello') == 'H'


def test_4(f):
    assert f(' x') == ' '
