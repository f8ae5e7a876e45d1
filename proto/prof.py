import sys; sys.path.insert(0,'/tmp/proto')
from ev import *
import cProfile,pstats
l=loadn(4); pr=cProfile.Profile(); pr.enable(); r=judge(l,P(l.pool),'p'); pr.disable(); print(r.wall_s)
pstats.Stats(pr).sort_stats('tottime').print_stats(12)
