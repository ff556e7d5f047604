# The shell of tests: long lines on the serial port, no escapes.
case $(tty) in /dev/ttyS*) stty cols 1000;; esac
bind 'set enable-bracketed-paste off'
PS1='# '
