def test_1(f):
    assert f('ABC') == 'abc'


def test_2(f):
    assert f('') == ''


def test_3(f):
    assert f('Hello World') == 'hello world'


def test_4(f):
    assert f('A1!') == 'a1!'
