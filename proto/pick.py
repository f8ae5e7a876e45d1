import pickle
from bench.robust.loads import load_of, TRACES
names=[]
for s in range(1,101):
    l=load_of(s)
    print(s,l.name,len(l.workload),l.pool.startup_s,l.pool.objective.percentile, round(l.workload.length_s/3600,1),flush=True)
    if len(l.workload)<60000 and (l.family!='daily' or l.pool.startup_s>100): names.append(s)
pickle.dump(names,open('/tmp/proto/names.pkl','wb')); print(len(names))
