def test_1(f):
    assert f('a.txt') == 'txt'


def test_2(f):
    assert f('photo.jpeg') == 'jpeg'


def test_3(f):
    assert f('x.tar.gz') == 'gz'


def test_4(f):
    assert f('main.py') == 'py'
