//! The environments that launchers really make, as recorded, and contradictory ones.

use super::*;

fn look(given: &Given, table: &str) -> Result<Option<Place>, EnvironmentError> {
    let pairs: Vec<(&str, &str)> =
        table.split_whitespace().map(|pair| pair.split_once('=').expect("NAME=value")).collect();
    place(given, &|name| pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string()))
}

fn found(table: &str) -> Place {
    look(&Given::default(), table).unwrap().unwrap()
}

fn wrong(table: &str) -> String {
    look(&Given::default(), table).unwrap_err().to_string()
}

fn master(host: &str, port: u16) -> Option<Master> {
    Some(Master { host: host.into(), port })
}

const BIGMAC: &str = "BIGMAC_RANK=3 BIGMAC_WORLD_SIZE=8 BIGMAC_LOCAL_RANK=1 BIGMAC_LOCAL_SIZE=2 \
    BIGMAC_MASTER=10.0.0.1:4711 BIGMAC_RESTART=2 BIGMAC_TOKEN=x";
const TORCHRUN: &str = "RANK=5 WORLD_SIZE=8 LOCAL_RANK=1 LOCAL_WORLD_SIZE=4 MASTER_ADDR=host0 MASTER_PORT=29400 \
    GROUP_RANK=1 GROUP_WORLD_SIZE=2 ROLE_RANK=5 ROLE_NAME=default ROLE_WORLD_SIZE=8 TORCHELASTIC_RESTART_COUNT=1 \
    TORCHELASTIC_MAX_RESTARTS=3 TORCHELASTIC_RUN_ID=none TORCHELASTIC_USE_AGENT_STORE=True OMP_NUM_THREADS=1 \
    TORCH_NCCL_ASYNC_ERROR_HANDLING=1";
const SRUN: &str = "SLURM_JOB_ID=1234 SLURM_STEP_ID=2 SLURM_PROCID=5 SLURM_NTASKS=7 SLURM_STEP_NUM_TASKS=7 \
    SLURM_LOCALID=1 SLURM_NODEID=2 SLURM_TASKS_PER_NODE=2(x3),1 SLURM_STEP_NODELIST=node[001,007-008],h2 \
    SLURM_JOB_NODELIST=other[1-9] SLURM_LAUNCH_NODE_IPADDR=10.1.1.1 SLURM_GTIDS=4,5";
const OPEN_MPI_5: &str = "OMPI_COMM_WORLD_RANK=2 OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_LOCAL_RANK=2 \
    OMPI_COMM_WORLD_LOCAL_SIZE=4 OMPI_COMM_WORLD_NODE_RANK=2 PMIX_RANK=2 PMIX_NAMESPACE=prterun-a-1@1 \
    PMIX_SERVER_URI41=x";
const MPICH: &str = "PMI_RANK=1 PMI_SIZE=4 PMI_FD=9 MPI_LOCALRANKID=1 MPI_LOCALNRANKS=4";

#[test]
fn a_process_started_by_hand_has_no_place() {
    assert_eq!(
        look(&Given::default(), "HOME=/root PATH=/bin OMP_NUM_THREADS=2 RANK= LOCAL_RANK=").unwrap(),
        None
    );
}

#[test]
fn every_launcher_is_understood() {
    let place = |rank, size, local_rank, local_size, master, launcher, restart| Place {
        rank,
        size,
        local_rank,
        local_size,
        master,
        launcher,
        restart,
    };
    assert_eq!(found(BIGMAC), place(3, 8, 1, 2, master("10.0.0.1", 4711), Launcher::Bigmac, 2));
    // Several nodes: their agents' counts of restarts differ. The agent holds the port.
    assert_eq!(found(TORCHRUN), place(5, 8, 1, 4, master("host0", 29401), Launcher::Torchrun, 0));
    // 16 * 1234 + 2 = 19746; 19746 mod 9500 = 746.
    assert_eq!(found(SRUN), place(5, 7, 1, 2, master("node001", 20746), Launcher::Srun, 0));
    assert_eq!(found(OPEN_MPI_5), place(2, 4, 2, 4, None, Launcher::OpenMpi, 0));
    assert_eq!(found(MPICH), place(1, 4, 1, 4, None, Launcher::Mpich, 0));
}

#[test]
fn torchrun_on_one_node_counts_restarts_and_may_leave_the_port_free() {
    let one = TORCHRUN.replace("GROUP_WORLD_SIZE=2", "GROUP_WORLD_SIZE=1");
    assert_eq!(found(&one).restart, 1);
    assert_eq!(found(&TORCHRUN.replace("=True", "=False")).master, master("host0", 29400));
    let last = TORCHRUN.replace("29400", "65535");
    assert!(
        wrong(&last).starts_with("MASTER_PORT is '65535'; expected a port below 65535"),
        "{}",
        wrong(&last)
    );
    // `--virtual-local-rank`.
    assert_eq!(found(&TORCHRUN.replace("LOCAL_RANK=1", "LOCAL_RANK=0")).local_rank, 0);
}

#[test]
fn a_job_of_slurm_without_srun_has_no_ranks() {
    let batch = "SLURM_JOB_ID=9 SLURM_NTASKS=4 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 SLURM_TASKS_PER_NODE=4 \
        SLURM_JOB_NODELIST=n1";
    assert_eq!(look(&Given::default(), batch).unwrap(), None);
    for special in ["4294967290", "4294967291"] {
        let table = format!("{batch} SLURM_STEP_ID={special}");
        assert_eq!(look(&Given::default(), &table).unwrap(), None, "{special}");
    }
    assert_eq!(found(&format!("{batch} SLURM_STEP_ID=0")).size, 4);
    // mpirun inside of it is a launcher of its own.
    assert_eq!(found(&format!("{batch} {OPEN_MPI_5}")).launcher, Launcher::OpenMpi);
}

#[test]
fn what_is_explicit_comes_first() {
    let given = Given { rank: Some(1), size: Some(2), ..Given::default() };
    let place = look(&given, &format!("{BIGMAC} {TORCHRUN}")).unwrap().unwrap();
    assert_eq!((place.rank, place.size, place.launcher), (1, 2, Launcher::Flags));
    assert_eq!(place.master, master("10.0.0.1", 4711));
    // Even over an environment that is wrong.
    assert_eq!(look(&given, "RANK=x LOCAL_RANK=0 WORLD_SIZE=2").unwrap().unwrap().rank, 1);
    let elsewhere = Given { master: master("::1", 7), ..Given::default() };
    assert_eq!(look(&elsewhere, TORCHRUN).unwrap().unwrap().master, master("::1", 7));
    // An address alone gives a launcher without one what it lacks.
    assert_eq!(found(&format!("{OPEN_MPI_5} BIGMAC_MASTER=[fe80::1]:99")).master, master("fe80::1", 99));
    let half = Given { rank: Some(1), ..Given::default() };
    let error = look(&half, "").unwrap_err().to_string();
    assert_eq!(error, "--rank is set and --world-size is not; set both, or neither");
}

#[test]
fn launchers_that_agree_or_nest_are_no_contradiction() {
    // srun speaks PMI to its tasks as well.
    assert_eq!(found(&format!("{SRUN} PMI_RANK=5 PMI_SIZE=7")).launcher, Launcher::Srun);
    // One torchrun, or one mpirun daemon, on each node.
    let one_each = "SLURM_JOB_ID=1 SLURM_STEP_ID=0 SLURM_PROCID=1 SLURM_NTASKS=2 SLURM_LOCALID=0 SLURM_NODEID=1 \
        SLURM_TASKS_PER_NODE=1(x2) SLURM_STEP_NODELIST=n[1-2]";
    assert_eq!(found(&format!("{one_each} {TORCHRUN}")).launcher, Launcher::Torchrun);
    assert_eq!(found(&format!("{one_each} {OPEN_MPI_5}")).launcher, Launcher::OpenMpi);
    assert_eq!(found(&format!("{one_each} {BIGMAC}")).launcher, Launcher::Bigmac);
    // torchrun in a pod of Kubeflow.
    assert_eq!(found(&format!("{TORCHRUN} PET_NODE_RANK=1 PET_NNODES=2")).launcher, Launcher::Torchrun);
}

#[test]
fn contradictions_name_both() {
    let error = wrong(&format!("{TORCHRUN} {OPEN_MPI_5}"));
    assert!(error.starts_with("WORLD_SIZE is 8 and OMPI_COMM_WORLD_SIZE is 4: "), "{error}");
    let error = wrong(&format!("{SRUN} PMI_RANK=4 PMI_SIZE=7"));
    assert!(error.starts_with("SLURM_PROCID is 5 and PMI_RANK is 4: "), "{error}");
    let error =
        wrong("BIGMAC_RANK=1 BIGMAC_WORLD_SIZE=4 RANK=2 WORLD_SIZE=4 LOCAL_RANK=2 LOCAL_WORLD_SIZE=4");
    assert!(error.starts_with("BIGMAC_RANK is 1 and RANK is 2: "), "{error}");
}

#[test]
fn half_an_environment_and_wrong_values_are_named() {
    for (table, expected) in [
        ("BIGMAC_RANK=1", "BIGMAC_RANK is set and BIGMAC_WORLD_SIZE is not; set both, or neither"),
        ("BIGMAC_WORLD_SIZE=1", "BIGMAC_WORLD_SIZE is set and BIGMAC_RANK is not; set both, or neither"),
        ("PMI_RANK=0", "PMI_RANK is set and PMI_SIZE is not; set both, or neither"),
        (
            "BIGMAC_RANK=0 BIGMAC_WORLD_SIZE=2 BIGMAC_LOCAL_RANK=0",
            "BIGMAC_LOCAL_RANK is set and BIGMAC_LOCAL_SIZE is not; set both, or neither",
        ),
        ("BIGMAC_RANK=one BIGMAC_WORLD_SIZE=2", "BIGMAC_RANK is 'one'; expected a number, 0 or more"),
        ("PMI_RANK=-1 PMI_SIZE=2", "PMI_RANK is '-1'; expected a number, 0 or more"),
        (
            "BIGMAC_RANK=2 BIGMAC_WORLD_SIZE=2",
            "BIGMAC_RANK is 2 and BIGMAC_WORLD_SIZE is 2; expected a rank below the number of ranks, from 0",
        ),
        (
            "BIGMAC_RANK=0 BIGMAC_WORLD_SIZE=2 BIGMAC_MASTER=::1",
            "BIGMAC_MASTER is '::1'; expected HOST:PORT, with brackets around an address of IPv6",
        ),
        (
            "RANK=0 WORLD_SIZE=2 LOCAL_RANK=0 LOCAL_WORLD_SIZE=2 MASTER_ADDR=a",
            "MASTER_ADDR is set and MASTER_PORT is not; set both, or neither",
        ),
        (
            "SLURM_STEP_ID=0 SLURM_PROCID=0 SLURM_NTASKS=2 SLURM_JOB_ID=1 SLURM_STEP_NODELIST=[",
            "SLURM_STEP_NODELIST is '['; expected a list of nodes, as in node[001,007-015],h2",
        ),
    ] {
        assert_eq!(wrong(table), expected, "{table}");
    }
}

#[test]
fn pods_are_sent_to_launch() {
    for (table, flags) in [
        (
            "PET_NODE_RANK=1 PET_NNODES=2 PET_NPROC_PER_NODE=4 PET_MASTER_ADDR=job-0 PET_MASTER_PORT=29501",
            "--nnodes 2 --node-rank 1 --master job-0:29501",
        ),
        (
            "LWS_WORKER_INDEX=2 LWS_GROUP_SIZE=3 LWS_LEADER_ADDRESS=leader.svc",
            "--nnodes 3 --node-rank 2 --master leader.svc:29500",
        ),
        (
            "RANK=1 WORLD_SIZE=2 MASTER_ADDR=job-0 MASTER_PORT=23456",
            "--nnodes 2 --node-rank 1 --master job-0:23456",
        ),
        ("JOB_COMPLETION_INDEX=3", "--nnodes NODES --node-rank 3 --master HOST-OF-NODE-0:29500"),
    ] {
        let error = wrong(table);
        assert!(
            error.contains(&format!("`bigmac launch -n RANKS-PER-NODE {flags} -- train ...`")),
            "{error}"
        );
    }
    // A single pod is a single process.
    assert_eq!(look(&Given::default(), "RANK=0 WORLD_SIZE=1 MASTER_ADDR=localhost").unwrap(), None);
    assert_eq!(look(&Given::default(), "PET_NODE_RANK=0 PET_NNODES=1").unwrap(), None);
}

#[test]
fn addresses_come_back() {
    for text in ["host:1", "10.0.0.1:65535", "[::1]:29500"] {
        assert_eq!(Master::parse(text).unwrap().to_string(), text);
    }
    for wrong in ["", "host", ":1", "host:", "host:0", "host:65536", "::1", "fe80::1:80", "[::1]", "a b:1"] {
        assert_eq!(Master::parse(wrong), None, "{wrong}");
    }
}
