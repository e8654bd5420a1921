def test_1(f):
    assert f('abc') == 'ABC'


def test_2(f):
    assert f('') == ''


def test_3(f):
    assert f('Hello World') == 'HELLO WORLD'


def test_4(f):
    assert f('a1!') == 'A1!'
